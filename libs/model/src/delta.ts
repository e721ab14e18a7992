import type { Chunk, Manifest, Precision } from './manifest.js';
import { kvSource, type ModelConfig } from './model-config.js';
import { chunksOf } from './package.js';
import { sliceWidths } from './slice-math.js';
import type { Slice } from './slice.js';

type Shape = Pick<Slice, 'ffn' | 'skip'>;

/** What a device that holds the chunks of `from` lacks for `to`; everything of `to` without a `from`. Both may be of different versions: equal bytes are one chunk. */
export function missingChunks(
  to: { readonly manifest: Pick<Manifest, 'config' | 'chunks'>; readonly slice: Shape },
  from?: { readonly manifest: Pick<Manifest, 'config' | 'chunks'>; readonly slice: Shape },
): Chunk[] {
  const held = new Set(from ? chunksOf(from.manifest, from.slice).map(({ id }) => id) : []);
  return chunksOf(to.manifest, to.slice).filter(({ id }) => !held.has(id) && held.add(id));
}

/** Bytes of one value: its bits, and its share of a block's float32 scale. */
function bytesPerValue({ kind, block }: Precision, columns: number): number {
  if (kind === 'fp32') return 4;
  return (kind === 'int4' ? 0.5 : 1) + 4 / Math.min(block ?? columns, columns);
}

/**
 * Bytes that a slice's layers, bands and per-layer embeddings take by the arithmetic of the architecture alone, without a package: what the chunks
 * of a package must come to, but for alignment. Embedding, head and tokenizer, which all slices share, are not in it.
 */
export function theoreticalBytes(config: ModelConfig, precision: Precision, slice: Shape): number {
  const { hiddenSize: D, hiddenSizePerLayerInput: P, headDim: d, laurelRank: R, altupNumInputs: A } = config;
  const [q, kv] = [config.numAttentionHeads * d, config.numKeyValueHeads * d];
  const matrix = (rows: number, columns: number): number => rows * columns * bytesPerValue(precision, columns);
  return sliceWidths(config, slice).reduce((sum, width, layer) => {
    if (width === 0) return sum;
    const owner = kvSource(config, layer) === layer;
    const attention = matrix(q, D) + matrix(D, q) + (owner ? 2 * matrix(kv, D) : 0);
    const others = matrix(R, D) + matrix(D, R) + 2 * matrix(P, D) + matrix(D, P);
    const small = 4 * (6 * D + (owner ? 2 : 1) * d + A * A + A ** 3 + A * D + 2 * D);
    const ffn = 2 * matrix(width, D) + matrix(D, width);
    return sum + attention + others + small + ffn + matrix(config.vocabSizePerLayerInput, P);
  }, 0);
}
