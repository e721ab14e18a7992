import { byteOf } from './tokenizer-bpe.js';

/** Turns ids into text as they come. The concatenated results equal `decode` of all ids. */
export interface TextStream {
  /** The text that became certain with this id; '' while a character is unfinished. */
  push(tokenId: number): string;
  /** Ends the stream. A character left unfinished, as at a token limit, is dropped. */
  end(): string;
}

/** What one id stands for: text, one byte of a UTF-8 character, or nothing (special tokens, ids without a token). */
export type Piece = { readonly text: string } | { readonly byte: number } | undefined;

/** A vocabulary entry as decoded output: `▁` is a blank, `<0xNN>` a byte. */
export function pieceOf(token: string): Piece {
  const byte = byteOf(token);
  return byte === undefined ? { text: token.replaceAll('▁', ' ') } : { byte };
}

/**
 * Bytes wait until their character is complete. Bytes that can no longer become a character give one U+FFFD each;
 * unlike the `tokenizers` crate, valid characters in the same run of bytes survive, since they have already been streamed.
 */
export function createTextStream(pieceAt: (tokenId: number) => Piece): TextStream {
  let waiting: number[] = [];

  const flushBroken = (): string => {
    const text = '\uFFFD'.repeat(waiting.length);
    waiting = [];
    return text;
  };

  return {
    push(tokenId) {
      const piece = pieceAt(tokenId);
      if (!piece) return '';
      if ('text' in piece) return flushBroken() + piece.text;
      waiting.push(piece.byte);
      let text = '';
      // A byte that does not fit breaks what waited before it and may itself start the next character.
      while (waiting.length > 0 && !isPrefix(waiting)) {
        text += '\uFFFD';
        waiting.shift();
      }
      if (waiting.length > 0 && waiting.length === sequenceLength(waiting[0]!)) {
        text += utf8.decode(Uint8Array.from(waiting));
        waiting = [];
      }
      return text;
    },
    end() {
      waiting = [];
      return '';
    },
  };
}

// ignoreBOM keeps U+FEFF, which is a character of the text here.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes of the character that this byte starts, 0 if it starts none. */
function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

/** Whether these bytes are the beginning (or all) of one well-formed character: RFC 3629, without overlong forms, surrogates and values above U+10FFFF. */
function isPrefix(bytes: readonly number[]): boolean {
  const [lead, second] = bytes as [number, number?];
  if (bytes.length > sequenceLength(lead)) return false;
  if (second !== undefined) {
    const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
  }
  return bytes.slice(2).every((byte) => byte >= 0x80 && byte <= 0xbf);
}
