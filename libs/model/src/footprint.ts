import type { Manifest } from './manifest.js';
import { firstSharedLayer, type ModelConfig } from './model-config.js';
import { chunksOf, packedExtraBytes } from './package.js';
import { sliceWidths } from './slice-math.js';
import type { Slice } from './slice.js';

/** What a slice costs a device, in bytes. */
export interface Footprint {
  /** Matrices and norms of the kept layers and bands, without embedding tables. */
  readonly weightsBytes: number;
  /** The token embedding, which is also the output head. */
  readonly headBytes: number;
  /** What packing large matrices for a processor adds to them. */
  readonly packedExtraBytes: number;
  /** K/V at the full context. */
  readonly kvBytes: number;
  /** Largest intermediate values while a chunk of the prompt is computed. */
  readonly activationBytes: number;
  /** Rows of the embedding tables that stay in memory after their use. */
  readonly hotRowBytes: number;
  /** Resident: weights + head + what packing adds + K/V + activations + hot rows. The per-layer embeddings stay on disk. */
  readonly totalBytes: number;
  /** Every chunk of the slice, tokenizer and per-layer embeddings included. */
  readonly downloadBytes: number;
  /** The part of the download that is read per token from disk. */
  readonly pleBytes: number;
  /** Bytes that decoding one token reads at the full context: divide by memory bandwidth for a lower bound of its time. */
  readonly bytesPerToken: number;
}

const FLOAT_BYTES = 4;

/** Positions of a prompt that are computed in one pass. Small models take fewer, so that activations do not outweigh their weights. */
export const prefillChunkTokens = (config: Pick<ModelConfig, 'hiddenSize'>): number => (config.hiddenSize < 512 ? 32 : 128);

/** Positions that a sliding layer has room for: what the first of `passTokens` new positions still sees, and those. */
export const slidingCapacity = (config: Pick<ModelConfig, 'slidingWindow'>, contextTokens: number, passTokens: number): number =>
  Math.min(contextTokens, config.slidingWindow - 1 + passTokens);

/** K/V bytes of one slice with room for `contextTokens` positions. Sliding layers have room for a window and a chunk of the prompt. */
export function kvBytes(config: ModelConfig, slice: Pick<Slice, 'ffn' | 'skip'>, contextTokens: number): number {
  const widths = sliceWidths(config, slice);
  const sliding = slidingCapacity(config, contextTokens, prefillChunkTokens(config));
  let positions = 0;
  for (let layer = 0; layer < firstSharedLayer(config); layer++)
    if (widths[layer]! > 0) positions += config.layerTypes[layer] === 'full_attention' ? contextTokens : sliding;
  return positions * 2 * config.numKeyValueHeads * config.headDim * FLOAT_BYTES;
}

const MOST_HOT_ROW_BYTES = 4 * 2 ** 20;

/** Memory for embedding rows used last: 1/64 of the per-layer embeddings among `chunks`, 4 MiB at the most. */
export function hotRowBytes(chunks: readonly Pick<Manifest['chunks'][number], 'bytes' | 'part'>[]): number {
  const pleBytes = chunks.reduce((sum, { bytes, part }) => sum + (part.kind === 'plane' ? bytes : 0), 0);
  return Math.min(MOST_HOT_ROW_BYTES, Math.floor(pleBytes / 64));
}

export function footprint(manifest: Pick<Manifest, 'config' | 'chunks'>, slice: Pick<Slice, 'ffn' | 'skip'>, contextTokens: number): Footprint {
  const { config } = manifest;
  let [weightsBytes, headBytes, pleBytes, downloadBytes] = [0, 0, 0, 0];
  const chunks = chunksOf(manifest, slice);
  for (const chunk of chunks) {
    downloadBytes += chunk.bytes;
    if (chunk.part.kind === 'plane') pleBytes += chunk.bytes;
    else if (chunk.part.kind !== 'tokenizer') {
      const head = chunk.tensors.some((tensor) => tensor.name.startsWith('embed_tokens.'));
      if (head) headBytes += chunk.bytes;
      else weightsBytes += chunk.bytes;
    }
  }
  const kv = kvBytes(config, slice, contextTokens);
  const chunk = Math.min(contextTokens, prefillChunkTokens(config));
  const streams = config.altupNumInputs * config.hiddenSize;
  const perToken = 3 * streams + 3 * Math.max(...slice.ffn) + 2 * slice.ffn.length * config.hiddenSizePerLayerInput;
  const scores = config.numAttentionHeads * chunk * contextTokens;
  const activationBytes = FLOAT_BYTES * (chunk * perToken + scores + config.vocabSize);
  const hotRows = hotRowBytes(chunks);
  const packedExtra = packedExtraBytes(chunks);
  return {
    weightsBytes,
    headBytes,
    packedExtraBytes: packedExtra,
    kvBytes: kv,
    activationBytes,
    hotRowBytes: hotRows,
    totalBytes: weightsBytes + headBytes + packedExtra + kv + activationBytes + hotRows,
    downloadBytes,
    pleBytes,
    bytesPerToken: weightsBytes + headBytes + packedExtra + kv,
  };
}
