import type { Manifest, Slice } from '@matfleet/model';
import type { Provider } from './kernels.js';
import type { Spinning } from './onnx.js';
import type { Reuse } from './prefix-reuse.js';

/** One turn of a conversation. A leading `system` turn is joined with the first user turn, as Gemma's template does. */
export interface ChatMessage {
  readonly role: 'user' | 'model' | 'system';
  readonly text: string;
}

export interface OpenEngineOptions {
  readonly manifest: Manifest;
  /** The folder that holds `chunks/<sha256>`. */
  readonly storeDir: string;
  /** Loaded at once, and used where an inference names none. */
  readonly sliceId: string;
  /** Further slices that an inference may name or change to; the store must hold their chunks. */
  readonly otherSlices?: readonly string[];
  /** Slices loaded at the same time, at least 1; by default all of them. The least recently used one makes room. */
  readonly mostOpenSlices?: number;
  /** Prompt and answer together; at most the model's own limit. */
  readonly contextTokens?: number;
  /** Memory for rows of the embedding tables that were used last; by default what the footprint counts. 0 keeps none. */
  readonly hotRowBytes?: number;
  /** Threads of one operator; by default 1 for small models, else the available cores up to 4. */
  readonly threads?: number;
  /** How these threads wait for work: busily never, inside a pass (the default), or between two passes too. */
  readonly spinning?: Spinning;
  /**
   * The execution provider that computes the decoder, as far as it has kernels for it; by default the CPU. The embedding tables and the keys and
   * values between two passes stay with the CPU. `ProviderUnavailable` where this machine lacks it.
   */
  readonly provider?: Provider;
  /** Most bytes of an accelerator's memory for weights, K/V and intermediate values; slices that need more are refused. Unbounded by default. */
  readonly acceleratorMemoryBytes?: number;
  readonly signal?: AbortSignal;
}

/** One model version, ready to answer with one slice or several. It serves one inference at a time. */
export interface Engine {
  readonly sliceId: string;
  /** Slices loaded now. */
  readonly openSlices: readonly string[];
  /** Loads another of the engine's slices ahead of its use. */
  loadSlice(sliceId: string): Promise<void>;
  readonly contextTokens: number;
  /** That compute the slices, the one with the weights first. */
  readonly executionProviders: readonly Provider[];
  /** Chat template and tokenizer; control tokens spelled out in a user's text stay text. */
  tokenize(messages: readonly ChatMessage[]): number[];
  /** <bos> and the text, without the chat template. */
  tokenizeText(text: string): number[];
  /** Throws RangeError, naming the place, when answers cannot be held to the format. */
  checkFormat(format: Format): void;
  /** What a token adds to the text, in UTF-8; none for control tokens. */
  bytesOf(tokenId: number): Uint8Array;
  /** Yields tokens as they are chosen. Throws when the prompt is empty, does not fit the context or holds an id outside the vocabulary. */
  generate(promptIds: readonly number[], options?: GenerateOptions): AsyncGenerator<TokenEvent, GenerateResult>;
  stats(): EngineStats;
  close(): Promise<void>;
}

export interface EngineStats {
  /** Rows of the per-layer embeddings that came from disk, all planes, since the engine was opened. */
  readonly pleRowsRead: number;
  /** Rows in memory now. */
  readonly pleRowsCached: number;
  /** Rows that came from memory; the hit rate is pleCacheHits / (pleCacheHits + pleRowsRead). */
  readonly pleCacheHits: number;
  /** Times that a pass waited for rows of a plane from disk, and how long: all together and the longest, ms. */
  readonly pleReads: number;
  readonly pleReadMs: number;
  readonly pleReadMsMax: number;
  /** Room for rows of the embedding tables in memory; never above the bound given to openEngine. */
  readonly hotRowBytes: number;
  /** Room for K/V at the engine's context, held as long as the engine is open. */
  readonly kvBytes: number;
  /** Weights of the open slices that lie with an accelerator, as ONNX Runtime's profile of a pass counts them; 0 on the CPU. */
  readonly acceleratorBytes: number;
}

export interface SamplingOptions {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed?: number;
}

export interface GenerateOptions {
  /** By default whatever the context leaves. */
  readonly maxTokens?: number;
  /** Tokens of the answer that another engine has told: it goes on after them, and they count. Nothing of their text comes again. */
  readonly answered?: readonly number[];
  /** Absent: greedy. */
  readonly sampling?: SamplingOptions;
  /** The slice that answers; by default the engine's. */
  readonly sliceId?: string;
  /** Asked before each further token, with the number of tokens so far: the slice that computes it. */
  readonly sliceFor?: (outputTokens: number) => string;
  /**
   * When the slice changes, `keep` goes on with the keys and values that the other slice computed: no cost, slightly other numbers than a
   * fresh run of the new slice. `prefill` computes the whole context anew: exactly the fresh run's numbers. Where the new slice has a layer
   * with keys and values of its own that the old one skipped, `keep` prefills too.
   */
  readonly onSwitch?: 'keep' | 'prefill';
  /**
   * Start from the keys and values that the engine still holds for the prompt's first tokens; by default `exact`, those that the same slice
   * computed. They may differ from a fresh run's in the last bits, since the same tokens may have been computed in passes of other lengths.
   */
  readonly reuse?: Reuse;
  /**
   * Greedy answers only: guess up to so many tokens from what the text said before and verify them in one pass; less than a prefill chunk, by
   * default 0. Every token is still the best of its own logits; a pass over several tokens may differ from single ones in the last bits.
   */
  readonly draftTokens?: number;
  /** The answer ends before the first of these texts. */
  readonly stop?: readonly string[];
  /** The only form that the answer can have. */
  readonly format?: Format;
  /** Every event tells its token's probability and those of so many best ones, 0 to 20. */
  readonly topLogprobs?: number;
  readonly signal?: AbortSignal;
}

export interface TokenEvent {
  readonly tokenId: number;
  /** Text that is certain now; '' while a character's bytes are incomplete or a stop text may have begun. */
  readonly text: string;
  /** The slice that computed it. */
  readonly sliceId: string;
  readonly logprobs?: TokenLogprobs;
}

/** JSON that is valid under a schema, `orText`: or text that does not begin with a brace; or what a grammar in llama.cpp's notation describes. */
export type Format = { readonly jsonSchema: unknown; readonly orText?: boolean } | { readonly grammar: string };

/** Natural logarithms over the model's own distribution, before sampling. */
export interface TokenLogprobs {
  readonly logprob: number;
  /** Best first. */
  readonly top: readonly { readonly tokenId: number; readonly logprob: number }[];
}

export interface GenerateResult {
  readonly reason: 'stop' | 'max-tokens' | 'context-full' | 'cancelled';
  readonly outputTokens: number;
  readonly promptTokens: number;
  /** Of these, the ones whose keys and values were there already. */
  readonly cachedPromptTokens: number;
  /** Tokens guessed ahead, and those of them that became part of the answer. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  /** From the call to the first chosen token. */
  readonly ttftMs: number;
  /** (tokens − 1) / (time of the last token − time of the first); 0 below two tokens. */
  readonly tokensPerSecond: number;
  readonly text: string;
  /** The end of `text` that no event carried, since it might have become a stop text. */
  readonly tail: string;
}

export type PrecisionKind = 'fp32' | 'int8' | 'int4';

export interface ImportOptions {
  /** A Hugging Face checkpoint directory. */
  readonly source: string;
  /** Must not exist; appears complete or not at all. */
  readonly out: string;
  readonly precision: PrecisionKind;
  /** Requested quantisation block; 32, 64 or 128. */
  readonly block?: number;
  /** Slice table; by default the one beside the checkpoint (`slices.json`), the published one for Google's shapes, else the full slice. */
  readonly slices?: readonly Slice[];
  readonly evaluation?: Manifest['evaluation'];
  readonly name?: string;
  /** Compute the answers that a healthy device must reproduce (default): loads every slice once. Without them devices accept a slice unproven. */
  readonly golden?: boolean;
  /** That encode weights; by default all cores up to 4, for a small model the caller's own. */
  readonly threads?: number;
  readonly onProgress?: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
}

/** `weights`: bytes of the published tensors. `packing`: bytes of the matrices that golden answers need packed. `golden`: slices. */
export interface ImportProgress {
  readonly step: 'weights' | 'packing' | 'golden';
  readonly done: number;
  readonly total: number;
}

export interface OpenLogitsOptions {
  /** A checkpoint directory or a package directory. */
  readonly source: string;
  readonly sliceId?: string;
  /** FFN width per kept layer; with `skip` an alternative to `sliceId`. */
  readonly ffn?: readonly number[];
  readonly skip?: readonly number[];
  /** For a bare checkpoint; a package keeps its own. */
  readonly precision?: PrecisionKind;
  readonly block?: number;
}

/** Raw logits, for comparison with a reference. */
export interface LogitsModel {
  readonly config: Manifest['config'];
  /** Unmasked logits, one row [vocabSize] per position: the first `prefill` ids in one pass (default all), the rest one by one from the cache; `last` gives the last position alone, through the prefill cut. */
  logits(ids: readonly number[], options?: { prefill?: number; last?: boolean }): Promise<Float32Array[]>;
  /** Positions that each kept K/V-sharing layer computed in the latest pass, as the graph itself counted them. */
  readonly sharedLayerPositions: readonly number[];
  close(): Promise<void>;
}
