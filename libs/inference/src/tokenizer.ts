import { chatParts } from './chat-template.js';
import type { ChatMessage } from './engine-api.js';
import { createTextStream, pieceOf, type Piece, type TextStream } from './text-stream.js';
import { Bpe } from './tokenizer-bpe.js';
import { readTokenizerFile } from './tokenizer-file.js';

export interface Tokenizer {
  /** One more than the largest id. */
  readonly vocabSize: number;
  /** Ids of plain text, without <bos>. Special tokens written in the text stay text; other added tokens (runs of newlines, HTML tags) are matched. */
  encode(text: string): number[];
  /** Ids of a conversation under the Gemma chat template, from <bos> to the opening of the model's turn. Throws on roles out of order. */
  encodeChat(messages: readonly ChatMessage[]): number[];
  /** Text of ids; special tokens and a character left unfinished at the end are dropped. */
  decode(tokenIds: readonly number[]): string;
  textStream(): TextStream;
  /** What an id adds to the text, in UTF-8: none for special tokens, one byte of a character for byte tokens. */
  bytesOf(tokenId: number): Uint8Array;
  idOf(token: string): number | undefined;
}

/** Reads the bytes of a `tokenizer.json` with Gemma's pipeline: blanks become ▁, BPE with byte fallback. Throws, naming the field, on any other pipeline. */
export function loadTokenizer(file: Uint8Array): Tokenizer {
  const { json, vocabulary, merges } = readTokenizerFile(file);
  const { unkToken, added } = checkPipeline(json);
  const ids = new Map(added.map((token) => [token.content, token.id]));
  const idOf = (token: string): number | undefined => ids.get(token) ?? vocabulary.idOf(token);
  const bpe = new Bpe(vocabulary, merges, unkToken === null ? undefined : idOf(unkToken));
  const plain = added.filter((token) => !token.special);
  const raw = new Matcher(plain.filter((token) => !token.normalized));
  const normalized = new Matcher(plain.filter((token) => token.normalized).map((token) => ({ ...token, content: normalize(token.content) })));

  const addedById = new Map(added.map((token) => [token.id, token]));
  const pieceAt = (id: number): Piece => {
    const token = addedById.get(id);
    const text = token?.content ?? vocabulary.textOf(id);
    return token?.special || text === undefined ? undefined : pieceOf(text);
  };

  const encode = (text: string): number[] => {
    const out: number[] = [];
    for (const section of raw.split(text)) {
      if (typeof section === 'number') out.push(section);
      else
        for (const part of normalized.split(normalize(section))) {
          if (typeof part === 'number') out.push(part);
          else bpe.encodeInto(part, out);
        }
    }
    return out;
  };

  return {
    vocabSize: added.reduce((size, { id }) => Math.max(size, id + 1), vocabulary.size),
    encode,
    encodeChat: (messages) =>
      chatParts(messages).flatMap((part) => {
        if ('text' in part) return encode(part.text);
        const id = idOf(part.control);
        if (id === undefined) throw new Error(`tokenizer.json has no ${part.control}, which the chat template needs`);
        return [id];
      }),
    decode(tokenIds) {
      const stream = createTextStream(pieceAt);
      return tokenIds.map((id) => stream.push(id)).join('') + stream.end();
    },
    textStream: () => createTextStream(pieceAt),
    bytesOf(tokenId) {
      const piece = pieceAt(tokenId);
      return piece === undefined ? new Uint8Array() : 'byte' in piece ? Uint8Array.of(piece.byte) : utf8.encode(piece.text);
    },
    idOf,
  };
}

const utf8 = new TextEncoder();

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly normalized: boolean;
}

const normalize = (text: string): string => text.replaceAll(' ', '▁');

/** Checks that the file asks for nothing that is not done here. */
function checkPipeline(json: Record<string, unknown>): { unkToken: string | null; added: readonly AddedToken[] } {
  const refuse = (field: string, value: unknown): never => {
    throw new Error(
      `tokenizer.json: ${field} is ${JSON.stringify(value)?.slice(0, 200)}, which is not part of Gemma's pipeline (▁ for blanks, BPE with byte fallback)`,
    );
  };
  const { model, normalizer, pre_tokenizer: preTokenizer, decoder, added_tokens: added } = json as unknown as FileFields;
  if (model?.['type'] !== 'BPE') refuse('model.type', model?.['type']);
  if (model!['byte_fallback'] !== true) refuse('model.byte_fallback', model!['byte_fallback']);
  for (const field of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'ignore_merges'])
    if (model![field]) refuse(`model.${field}`, model![field]);
  if (normalizer?.type !== 'Replace' || normalizer.pattern?.String !== ' ' || normalizer.content !== '▁') refuse('normalizer', normalizer);
  // Gemma's file splits at blanks, of which the normaliser has left none.
  if (preTokenizer && (preTokenizer.type !== 'Split' || preTokenizer.pattern?.String !== ' ')) refuse('pre_tokenizer', preTokenizer);
  if (decoder?.decoders?.map((step) => step.type).join() !== 'Replace,ByteFallback,Fuse') refuse('decoder', decoder);
  for (const token of added ?? [])
    for (const flag of ['lstrip', 'rstrip', 'single_word'] as const)
      if (token[flag]) refuse(`added token ${JSON.stringify(token.content)}: ${flag}`, token[flag]);
  return { unkToken: (model!['unk_token'] as string | null | undefined) ?? null, added: added ?? [] };
}

/** The fields that are looked at, as a well-formed file has them. */
interface FileFields {
  readonly model?: Record<string, unknown>;
  readonly normalizer?: Replace | null;
  readonly pre_tokenizer?: Replace | null;
  readonly decoder?: { readonly decoders?: readonly { readonly type?: string }[] } | null;
  readonly added_tokens?: readonly (AddedToken & { readonly lstrip?: boolean; readonly rstrip?: boolean; readonly single_word?: boolean })[];
}

interface Replace {
  readonly type?: string;
  readonly pattern?: { readonly String?: string };
  readonly content?: string;
}

/** Finds added tokens in text, leftmost and longest. Candidates at a place are tried by length: a few dozen lengths stand for thousands of tokens. */
class Matcher {
  private readonly ids: Map<string, number>;
  private readonly lengths = new Map<string, number[]>(); // by first UTF-16 unit, longest first

  constructor(tokens: readonly Pick<AddedToken, 'id' | 'content'>[]) {
    this.ids = new Map(tokens.map((token) => [token.content, token.id]));
    for (const { content } of tokens) {
      const lengths = this.lengths.get(content[0]!) ?? [];
      if (!lengths.includes(content.length))
        this.lengths.set(
          content[0]!,
          [...lengths, content.length].sort((a, b) => b - a),
        );
    }
  }

  /** The text cut into ids of added tokens and the non-empty strings between them. */
  split(text: string): (string | number)[] {
    if (this.ids.size === 0) return text === '' ? [] : [text];
    const out: (string | number)[] = [];
    let start = 0;
    for (let i = 0; i < text.length;) {
      const length = this.lengths.get(text[i]!)?.find((candidate) => this.ids.has(text.slice(i, i + candidate)));
      if (length === undefined) {
        i++;
        continue;
      }
      if (i > start) out.push(text.slice(start, i));
      out.push(this.ids.get(text.slice(i, i + length))!);
      i += length;
      start = i;
    }
    if (start < text.length) out.push(text.slice(start));
    return out;
  }
}
