import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Chunk, ModelConfig } from '@matfleet/model';
import { LRUCache } from 'lru-cache';
import { dequantize, type Bits } from './quantize.js';

type TensorEntry = Chunk['tensors'][number];
const CACHED_ROWS = 256;

/** The input side of the tied embedding: rows read from the chunk that the head is mapped from. */
export class TokenEmbedding {
  private readonly fd: number;
  private readonly table: TensorEntry;
  private readonly scales: TensorEntry | undefined;
  private readonly rows = new LRUCache<number, Float32Array>({ max: CACHED_ROWS });

  constructor(
    private readonly config: ModelConfig,
    chunks: readonly Chunk[],
    storeDir: string,
  ) {
    const chunk = chunks.find((c) => c.tensors.some((t) => t.name === 'embed_tokens.weight'));
    if (!chunk) throw new Error('no chunk holds the token embedding');
    this.table = chunk.tensors.find((t) => t.name === 'embed_tokens.weight')!;
    this.scales = chunk.tensors.find((t) => t.name === 'embed_tokens.weight.scales');
    this.fd = openSync(join(storeDir, 'chunks', chunk.id), 'r');
  }

  /** Rows scaled by sqrt(D), (S, D). */
  read(tokenIds: readonly number[]): Float32Array {
    const D = this.config.hiddenSize;
    const out = new Float32Array(tokenIds.length * D);
    tokenIds.forEach((id, s) => out.set(this.row(id), s * D));
    return out;
  }

  close(): void {
    closeSync(this.fd);
  }

  private row(id: number): Float32Array {
    const cached = this.rows.get(id);
    if (cached) return cached;
    const D = this.config.hiddenSize;
    const values = this.readRow(this.table, id);
    let row: Float32Array;
    if (this.scales && this.table.block) {
      const block = this.table.block;
      const scales = this.readRow(this.scales, id);
      const bits = ((this.table.shape[2]! * 8) / block) as Bits;
      row = dequantize({ values, scales: new Float32Array(scales.buffer) }, 1, D, bits, block);
    } else row = new Float32Array(values.buffer);
    row = row.map((value) => value * Math.fround(Math.sqrt(D)));
    this.rows.set(id, row);
    return row;
  }

  private readRow(tensor: TensorEntry, row: number): Uint8Array {
    const bytes = new Uint8Array(tensor.bytes / this.config.vocabSize);
    const read = readSync(this.fd, bytes, 0, bytes.length, tensor.offset + row * bytes.length);
    if (read < bytes.length) throw new Error(`the token embedding's chunk ends inside row ${row}`);
    return bytes;
  }
}
