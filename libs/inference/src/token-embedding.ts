import type { Chunk, ModelConfig } from '@matfleet/model';
import { decodeLayer, rowBytes, type PleRowFormat } from './ple-rows.js';
import { RowTable, rowBytesOf, type RowRange } from './row-table.js';

/** The input side of the tied embedding: rows read from the chunk that the head is mapped from. */
export class TokenEmbedding {
  private readonly table: RowTable;
  private readonly format: PleRowFormat;

  /** Bytes of one row. */
  static rowBytes(config: ModelConfig, chunks: readonly Chunk[]): number {
    return rowBytesOf([rowsIn(config, chunks).range]);
  }

  /** Keeps `cachedRows` rows in memory. Throws where the chunk is absent or too short. */
  constructor(
    private readonly config: ModelConfig,
    chunks: readonly Chunk[],
    storeDir: string,
    cachedRows: number,
  ) {
    const { range, format } = rowsIn(config, chunks);
    this.format = format;
    this.table = new RowTable('the token embedding', config.vocabSize, [range], storeDir, cachedRows);
  }

  get cacheBytes(): number {
    return this.table.cache.bytes;
  }

  /** Rows scaled by sqrt(D), (S, D). */
  async read(tokenIds: readonly number[]): Promise<Float32Array> {
    const D = this.config.hiddenSize;
    const scale = Math.fround(Math.sqrt(D));
    const out = new Float32Array(tokenIds.length * D);
    await this.table.read(tokenIds, (bytes, s) => decodeLayer(this.format, bytes, 0, scale, out, s * D));
    return out;
  }

  close(): void {
    this.table.close();
  }
}

/** Values and scales lie in two tensors; one after the other they are a row of a plane with one layer. */
function rowsIn({ hiddenSize: D, vocabSize: V }: ModelConfig, chunks: readonly Chunk[]): { range: RowRange; format: PleRowFormat } {
  const chunk = chunks.find((c) => c.tensors.some((t) => t.name === 'embed_tokens.weight'));
  if (!chunk) throw new Error('no chunk holds the token embedding');
  const values = chunk.tensors.find((t) => t.name === 'embed_tokens.weight')!;
  const scales = chunk.tensors.find((t) => t.name === 'embed_tokens.weight.scales');
  const bits = values.block ? (((values.shape[2]! * 8) / values.block) as 4 | 8) : 32;
  const format: PleRowFormat = { layers: 1, width: D, bits, block: values.block ?? D };
  const scaleBytes = scales ? scales.bytes / V : 0;
  // A last short block is padded on disk.
  const valueBytes = rowBytes(format) - scaleBytes;
  const pieces = [{ offset: values.offset, stride: values.bytes / V, bytes: valueBytes }];
  if (scales) pieces.push({ offset: scales.offset, stride: scaleBytes, bytes: scaleBytes });
  return { range: { fromRow: 0, toRow: V, chunk: chunk.id, pieces }, format };
}
