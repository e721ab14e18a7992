import type { Config } from '../config.js';
import type { EngineEvent, EngineFinished, EngineRequest, EngineSpec, SliceChange } from './engine-host.js';

/** Counters that the engine process reports every second and with every answer. */
export interface EngineCounters {
  readonly pleRowsRead: number;
  readonly pleRowsCached: number;
  readonly pleCacheHits: number;
  readonly pleReads: number;
  readonly pleReadMs: number;
  readonly pleReadMsMax: number;
  readonly hotRowBytes: number;
  readonly kvBytes: number;
  readonly acceleratorBytes: number;
}

export interface Loaded {
  /** The engine's own bound, after the model's limit. */
  readonly contextTokens: number;
  readonly runtimeBytes: number;
  readonly executionProviders: readonly string[];
  readonly runtimeVersion: string;
  readonly heldSlices: readonly string[];
  readonly counters: EngineCounters;
}

export type FailureCode = 'invalid' | 'prompt-too-long' | 'internal';

/** What the operator said about the device's processors. */
export interface EngineTerms {
  readonly box: 'dedicated' | 'shared';
  /** Of one operator; else the library's choice. */
  readonly threads?: number;
  readonly provider: Config['provider'];
  /** Of an accelerator's memory, at most; unbounded when absent. */
  readonly acceleratorMemoryBytes?: number;
}

/** Agent to engine process. `id` names one request. */
export type ToEngine =
  | { readonly kind: 'load'; readonly spec: EngineSpec; readonly terms: EngineTerms }
  /** The engine stays at most `window` unacknowledged tokens ahead. */
  | { readonly kind: 'generate'; readonly id: number; readonly request: EngineRequest; readonly window: number }
  | { readonly kind: 'check-prompt'; readonly id: number; readonly request: EngineRequest }
  | { readonly kind: 'acknowledge'; readonly id: number; readonly tokens: number }
  | { readonly kind: 'change-slice'; readonly id: number; readonly to: SliceChange }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'stop' };

/** Engine process to agent. */
export type FromEngine =
  | ({ readonly kind: 'loaded' } & Loaded)
  | { readonly kind: 'load-failed'; readonly message: string }
  | { readonly kind: 'started'; readonly id: number; readonly promptTokens: number }
  /** `stepMs`: from the token before it (or the prompt's receipt) to this one, without what the engine waited for acknowledgements. */
  | (Extract<EngineEvent, { kind: 'token' }> & { readonly id: number })
  /** Answers `check-prompt`; `failed` does where it does not fit. */
  | { readonly kind: 'fits'; readonly id: number; readonly promptTokens: number }
  | { readonly kind: 'finished'; readonly id: number; readonly result: EngineFinished; readonly counters: EngineCounters }
  | { readonly kind: 'failed'; readonly id: number; readonly code: FailureCode; readonly message: string }
  | { readonly kind: 'counters'; readonly counters: EngineCounters };
