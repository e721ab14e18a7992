import { encodeRow, rowBytes, type PleRowFormat } from './ple-rows.js';
import { quantizeBlock, blocksIn, type Bits } from './quantize.js';
import type { RawRows } from './raw-rows.js';
import { decodeValues } from './raw-rows.js';

// The arithmetic of an import: a few rows of a published tensor to the bytes that a chunk holds. Works through a row at a time, which stays
// in the processor's cache.

export type Encoding =
  /** Columns [fromColumn, toColumn), quantised in blocks or as float32. */
  | {
      readonly kind: 'matrix';
      readonly fromColumn: number;
      readonly toColumn: number;
      readonly quantization?: { readonly bits: Bits; readonly block: number };
    }
  /** Rows of per-layer embeddings, split by plane. */
  | { readonly kind: 'planes'; readonly planes: readonly { readonly layers: readonly number[]; readonly format: PleRowFormat }[] };

export interface Encoded {
  /** The matrix's values, or one part for each plane. */
  readonly parts: readonly Uint8Array[];
  /** Of a quantised matrix. */
  readonly scales?: Float32Array;
}

/** Throws on a value that is not finite, naming tensor, file and place. */
export function encodePiece(piece: RawRows, encoding: Encoding): Encoded {
  return encoding.kind === 'planes' ? encodePlanes(piece, encoding.planes) : encodeMatrix(piece, encoding);
}

function encodeMatrix(piece: RawRows, { fromColumn, toColumn, quantization }: Encoding & { kind: 'matrix' }): Encoded {
  const { rows, width } = piece;
  const K = toColumn - fromColumn;
  if (!quantization) {
    const values = new Float32Array(rows * K);
    for (let row = 0; row < rows; row++) decodeValues(piece, row, fromColumn, values.subarray(row * K, (row + 1) * K));
    return { parts: [new Uint8Array(values.buffer)] };
  }
  const { bits, block } = quantization;
  const blocks = blocksIn(K, block);
  const values = new Uint8Array((rows * blocks * block * bits) / 8);
  const scales = new Float32Array(rows * blocks);
  const line = new Float32Array(Math.min(K, width));
  for (let row = 0; row < rows; row++) {
    decodeValues(piece, row, fromColumn, line);
    for (let b = 0; b < blocks; b++) {
      const at = row * blocks + b;
      scales[at] = quantizeBlock(line, b * block, Math.min(block, K - b * block), bits, values, at * block, block);
    }
  }
  return { parts: [values], scales };
}

function encodePlanes(piece: RawRows, planes: (Encoding & { kind: 'planes' })['planes']): Encoded {
  const { rows, width } = piece;
  const parts = planes.map(({ format }) => new Uint8Array(rows * rowBytes(format)));
  const lines = planes.map(({ format }) => new Float32Array(format.layers * format.width));
  const all = new Float32Array(width);
  for (let row = 0; row < rows; row++) {
    decodeValues(piece, row, 0, all);
    for (const [p, { layers, format }] of planes.entries()) {
      const line = lines[p]!;
      layers.forEach((layer, i) => line.set(all.subarray(layer * format.width, (layer + 1) * format.width), i * format.width));
      encodeRow(format, line, parts[p]!, row * rowBytes(format));
    }
  }
  return { parts };
}
