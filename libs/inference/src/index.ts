export { openEngine } from './engine.js';
export { openLogits } from './logits.js';
export { importCheckpoint } from './import.js';
export { synthCheckpoint, synthPackage, type SynthOptions } from './synth.js';
export { readSliceTable, type SliceTable } from './slice-table.js';
export { prepare, type PrepareOptions, type PrepareResult } from './prepare.js';
export { isPrepared, sweepPrepared, verifyPrepared } from './prepared.js';
export { PROVIDERS, type Provider } from './kernels.js';
export { runtime } from './onnx.js';
export { ProviderUnavailable } from './provider-unavailable.js';
export { verifyChunks, type DamagedChunk } from './chunk-check.js';
export { readManifest } from './package-dir.js';
export { exactDraftTokens } from './draft-policy.js';
export { threadPolicy, type Box } from './thread-policy.js';
export type {
  ChatMessage,
  Engine,
  EngineStats,
  Format,
  GenerateOptions,
  GenerateResult,
  ImportOptions,
  ImportProgress,
  LogitsModel,
  OpenEngineOptions,
  OpenLogitsOptions,
  PrecisionKind,
  SamplingOptions,
  TokenEvent,
  TokenLogprobs,
} from './engine-api.js';
export { Formats } from './formats.js';
export { loadTokenizer, type Tokenizer } from './tokenizer.js';
