import { quantizeBlock } from './quantize.js';

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

const blocksPerLayer = ({ width, block }: PleRowFormat): number => Math.ceil(width / block);
const valueBytesPerLayer = ({ width, bits }: PleRowFormat): number => Math.ceil((width * bits) / 8);

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
      const scale = quantizeBlock(row, layer * width + b * block, Math.min(block, width - b * block), bits, values, code);
      scales.setFloat32((layer * blocksPerLayer(format) + b) * 4, scale, true);
    }
}

/** Bytes of one row -> (n * P) float32. */
export function decodeRow(format: PleRowFormat, bytes: Uint8Array): Float32Array {
  const { layers, width, bits, block } = format;
  const out = new Float32Array(layers * width);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bits === 32) {
    for (let i = 0; i < out.length; i++) out[i] = view.getFloat32(i * 4, true);
    return out;
  }
  const zero = bits === 8 ? 128 : 8;
  const scalesAt = layers * valueBytesPerLayer(format);
  for (let layer = 0; layer < layers; layer++) {
    const start = layer * valueBytesPerLayer(format);
    for (let i = 0; i < width; i++) {
      const q = bits === 8 ? bytes[start + i]! : (bytes[start + (i >> 1)]! >> ((i & 1) * 4)) & 15;
      out[layer * width + i] = (q - zero) * view.getFloat32(scalesAt + (layer * blocksPerLayer(format) + Math.floor(i / block)) * 4, true);
    }
  }
  return out;
}
