import { quantizeBlock } from './quantize.js';

// Looked up once: a global costs more than the sum around it where code runs in a VM context, as in specs.
const { ceil, fround, min } = Math;

// One token's per-layer embedding in a plane: for every layer of the plane its P values, quantised in blocks, then the blocks' scales of
// all layers (float32). Quantised planes are stored as bytes, one such row after another, so that a token costs one read per plane.
//
// Legend: P values per layer · B block · b bits · n layers of the plane

export interface PleRowFormat {
  readonly layers: number;
  readonly width: number;
  /** 32: plain float32 values. */
  readonly bits: 4 | 8 | 32;
  readonly block: number;
}

const blocksPerLayer = ({ width, block }: PleRowFormat): number => ceil(width / block);
const valueBytesPerLayer = ({ width, bits }: PleRowFormat): number => ceil((width * bits) / 8);

export function rowBytes(format: PleRowFormat): number {
  const values = format.layers * valueBytesPerLayer(format);
  return format.bits === 32 ? values : values + format.layers * blocksPerLayer(format) * 4;
}

/** (n * P) float32 -> bytes of one row, written to `out` at `at`. */
export function encodeRow(format: PleRowFormat, row: Float32Array, out: Uint8Array, at: number): void {
  const { layers, width, bits, block } = format;
  if (bits === 32) return void out.set(new Uint8Array(row.buffer, row.byteOffset, row.byteLength), at);
  const scales = new DataView(out.buffer, out.byteOffset + at + layers * valueBytesPerLayer(format));
  const values = out.subarray(at);
  for (let layer = 0; layer < layers; layer++)
    for (let b = 0; b < blocksPerLayer(format); b++) {
      const code = layer * valueBytesPerLayer(format) * (8 / bits) + b * block;
      const scale = quantizeBlock(row, layer * width + b * block, min(block, width - b * block), bits, values, code);
      scales.setFloat32((layer * blocksPerLayer(format) + b) * 4, scale, true);
    }
}

/** P values of one layer of a row, times `factor`, to `out` from `at` on. */
export function decodeLayer(format: PleRowFormat, row: Uint8Array, layer: number, factor: number, out: Float32Array, at: number): void {
  const { layers, width, bits, block } = format;
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  const start = layer * valueBytesPerLayer(format);
  if (bits === 32) {
    for (let i = 0; i < width; i++) out[at + i] = view.getFloat32(start + i * 4, true) * factor;
    return;
  }
  let scaleAt = layers * valueBytesPerLayer(format) + layer * blocksPerLayer(format) * 4;
  for (let from = 0; from < width; from += block, scaleAt += 4) {
    const scale = view.getFloat32(scaleAt, true);
    const to = min(width, from + block);
    // Rounded twice, as the value and as its multiple, like a table that was decoded before it was scaled.
    if (bits === 8) {
      for (let i = from; i < to; i++) out[at + i] = fround((row[start + i]! - 128) * scale) * factor;
      continue;
    }
    for (let i = from; i < to; i += 2) {
      const pair = row[start + (i >> 1)]!;
      out[at + i] = fround(((pair & 15) - 8) * scale) * factor;
      if (i + 1 < to) out[at + i + 1] = fround(((pair >> 4) - 8) * scale) * factor;
    }
  }
}
