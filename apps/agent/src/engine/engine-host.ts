/** Which engine to run: a slice of a model version whose chunks lie verified in the store. */
export interface EngineSpec {
  readonly modelVersionId: string;
  readonly modelName: string;
  readonly sliceId: string;
  /** `<data>/models/<versionId>/manifest.json`. */
  readonly manifestPath: string;
  /** The directory that holds `chunks/`. */
  readonly storeDir: string;
  readonly contextTokens: number;
  /** Of the weights, for example `int4/64`. */
  readonly precision?: string;
  /** Of the slice's chunks. */
  readonly packageBytes?: number;
  /** Slices loaded at the same time: the active one, and smaller ones within it that requests name. 2 when absent. */
  readonly openSlices?: number;
  /** Memory for rows of the embedding tables used last; the engine's own default when absent. */
  readonly hotRowBytes?: number;
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'model';
  readonly text: string;
}

/** `messages`, put through the model's chat template; or `text`, which the model continues after <bos>; or `promptIds`, taken as they are. */
export interface EngineRequest {
  readonly messages?: readonly ChatMessage[];
  readonly text?: string;
  readonly promptIds?: readonly number[];
  /** Tokens of the answer that the caller has: it goes on after them. */
  readonly answeredIds?: readonly number[];
  /** Absent: what the context still holds. With `answeredIds`, those count. */
  readonly maxTokens?: number;
  /** Absent: greedy. */
  readonly sampling?: { readonly temperature?: number; readonly topK?: number; readonly topP?: number; readonly seed?: number };
  /** From nothing and one token a pass, so that not even rounding depends on what the engine did before. */
  readonly reproducible?: boolean;
  /** The answer ends before the first of these texts. */
  readonly stop?: readonly string[];
  /** The only form that the answer can have. */
  readonly format?: { readonly jsonSchema: unknown; readonly orText?: boolean } | { readonly grammar: string };
  /** Every token tells its probability and those of so many best ones. */
  readonly topLogprobs?: number;
  /** One of the status's held slices; the spec's when absent. */
  readonly sliceId?: string;
}

/** Natural logarithm of a token's probability; `bytes` is what it adds to the text, in UTF-8. */
export interface TokenLogprob {
  readonly tokenId: number;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** Which slice computes from the next token on, and whether it takes the context over as it is or computes it anew. */
export interface SliceChange {
  readonly sliceId: string;
  readonly mode: 'keep' | 'prefill';
}

/** `started` comes once, before the first token; `text` may be empty while a character is incomplete. */
export type EngineEvent =
  | { readonly kind: 'started'; readonly promptTokens: number }
  /** `stepMs`: from the token before it, as the engine measured it; a slow reader does not count. */
  | {
      readonly kind: 'token';
      readonly tokenId: number;
      readonly text: string;
      readonly stepMs: number;
      readonly sliceId: string;
      readonly logprob?: TokenLogprob & { readonly top: readonly TokenLogprob[] };
    };

export interface EngineFinished {
  readonly reason: 'stop' | 'max-tokens' | 'context-full' | 'cancelled';
  readonly promptTokens: number;
  /** Of these, the ones that an earlier answer had computed. */
  readonly cachedPromptTokens: number;
  readonly outputTokens: number;
  /** From the engine's receipt of the prompt to its first token. */
  readonly ttftMs: number;
  readonly tokensPerSecond: number;
  /** The end of the text that came with no token, since it might have become a stop text. */
  readonly tail: string;
}

/** Which bound holds the engine's memory. */
export type MemoryLimitBy = 'cgroup-v1' | 'cgroup-v2' | 'watchdog';

export interface EngineStatus {
  readonly ready: boolean;
  readonly pleRowsRead: number;
  readonly pleRowsCached: number;
  readonly pleCacheHits: number;
  readonly pleReads: number;
  readonly pleReadMs: number;
  readonly pleReadMsMax: number;
  readonly hotRowBytes: number;
  readonly kvBytes: number;
  /** Weights that lie with an accelerator. */
  readonly acceleratorBytes: number;
  readonly rssBytes: number;
  /** The engine's own bound: the spec's, or the model's where that is less. */
  readonly contextTokens: number;
  /** Resident size after load less the model's own bytes: what the runtime costs beside the grant. */
  readonly runtimeBytes: number;
  readonly executionProviders: readonly string[];
  readonly runtimeVersion: string;
  /** Slices that a request may name, the spec's among them. */
  readonly heldSlices: readonly string[];
  readonly memoryLimitBy: MemoryLimitBy;
  readonly memoryLimitBytes: number;
}

/**
 * Why the engine did not do what was asked: `unavailable` (it died, is stopping or restarting: try again), `invalid` (the request cannot be served
 * by this slice: prompt too long, id out of range), `start-failed`, `timeout` (a wait ran past its deadline), `internal`.
 */
export class EngineError extends Error {
  constructor(
    readonly code: 'unavailable' | 'invalid' | 'prompt-too-long' | 'start-failed' | 'timeout' | 'internal',
    message: string,
    options?: ErrorOptions & { readonly retryAfterMs?: number },
  ) {
    super(message, options);
    this.name = 'EngineError';
    this.retryAfterMs = options?.retryAfterMs;
  }
  readonly retryAfterMs: number | undefined;
}

/** One live engine process with one slice loaded. Answers one request at a time; further ones wait inside. */
export interface RunningEngine {
  readonly spec: EngineSpec;
  readonly pid: number;
  /**
   * `onEvent` may return a promise: the engine runs at most a small window of tokens ahead of it. An abort ends the answer between two tokens
   * and resolves with reason `cancelled`. `onRunning` is given a function that changes the slice. Rejects with EngineError.
   */
  generate(
    request: EngineRequest,
    onEvent: (event: EngineEvent) => void | Promise<void>,
    signal?: AbortSignal,
    onRunning?: (change: (to: SliceChange) => void) => void,
  ): Promise<EngineFinished>;
  /** Tokens of the request's prompt, while another answer may run. Rejects with EngineError `prompt-too-long` when the context does not hold them. */
  checkPrompt(request: EngineRequest): Promise<number>;
  /** Greedy continuation of `promptIds` by up to `count` ids (fewer when a stop id comes), and how long each took. */
  golden(promptIds: readonly number[], count: number, signal?: AbortSignal): Promise<{ tokenIds: number[]; stepsMs: number[] }>;
  status(): EngineStatus;
  /** Answers that run or wait inside. */
  inFlight(): number;
  /** Resolves true once no answer runs, false after `timeoutMs`. */
  idle(timeoutMs: number): Promise<boolean>;
  /** Ends the process: asks, waits for a short deadline, then kills. Never rejects; safe to repeat. */
  stop(): Promise<void>;
  /** Called once when the process has ended, with the reason in plain words; at once when it already has. */
  onExit(callback: (reason: string) => void): void;
}

export interface EngineHost {
  /** Starts a child process and loads the slice. Rejects with EngineError `start-failed`, naming the cause, within the host's start deadline. */
  start(spec: EngineSpec, signal?: AbortSignal): Promise<RunningEngine>;
}
