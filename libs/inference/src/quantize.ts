// Symmetric block quantisation in the layout of ONNX Runtime's MatMulNBits: a row of K values is cut into blocks, each with one
// float32 scale; int8 is stored around 128, int4 around 8 with the lower nibble first. A last short block is padded with zeros.
//
// Legend: N rows (outputs) · K columns (inputs) · B block

// Looked up once: a global costs more than the sum around it where code runs in a VM context, as in specs.
const { abs, ceil, floor, fround, log2, max, min } = Math;

export type Bits = 4 | 8;

export interface QuantizedMatrix {
  /** [N, ceil(K / B), B * bits / 8] */
  readonly values: Uint8Array;
  /** [N * ceil(K / B)] */
  readonly scales: Float32Array;
}

const MIN_BLOCK = 16;
/** The smallest normal float32. */
const LEAST_SCALE = 2 ** -126;

/**
 * The largest block that MatMulNBits takes (a power of two, at least 16) up to `requested` and K; undefined where none fits and the
 * matrix stays float32. `exact` demands that blocks fill K evenly, which FFN bands need so that they can be joined.
 */
export function blockFor(requested: number, K: number, exact = false): number | undefined {
  let block = 2 ** floor(log2(min(requested, K)));
  while (exact && block >= MIN_BLOCK && K % block !== 0) block /= 2;
  return block >= MIN_BLOCK ? block : undefined;
}

export const blocksIn = (K: number, block: number): number => ceil(K / block);

export function quantize(matrix: Float32Array, N: number, K: number, bits: Bits, block: number): QuantizedMatrix {
  const blocks = blocksIn(K, block);
  const values = new Uint8Array((N * blocks * block * bits) / 8);
  const scales = new Float32Array(N * blocks);
  for (let n = 0; n < N; n++)
    for (let b = 0; b < blocks; b++) {
      const at = n * blocks + b;
      scales[at] = quantizeBlock(matrix, n * K + b * block, min(block, K - b * block), bits, values, at * block, block);
    }
  return { values, scales };
}

/**
 * One block: values [from, from + count) of `source`, written to `out` as `size` codes from code number `at` (even) on, the rest zeros.
 * Returns the scale.
 */
export function quantizeBlock(source: Float32Array, from: number, count: number, bits: Bits, out: Uint8Array, at: number, size = count): number {
  const end = from + count;
  let least = 0;
  let most = 0;
  for (let i = from; i < end; i++) {
    least = min(least, source[i]!);
    most = max(most, source[i]!);
  }
  // int4 has one more step below zero than above: giving it to the largest value, whatever its sign, saves a quarter of the error.
  const scale = fround(bits === 8 ? max(-least, most) / 127 : (-least > most ? least : most) / -8);
  // A scale too small for its full precision could lead beyond the codes; such a block is zero.
  const inverse = abs(scale) < LEAST_SCALE ? 0 : 1 / scale;
  // Codes are positive, so that cutting off the fraction rounds half up.
  if (bits === 8) {
    for (let i = 0; i < count; i++) out[at + i] = min(255, source[from + i]! * inverse + 128.5);
    if (size > count) out.fill(128, at + count, at + size);
    return scale;
  }
  let byte = at >> 1;
  const paired = end - (count & 1);
  for (let i = from; i < paired; i += 2) {
    const low = (source[i]! * inverse + 8.5) | 0;
    const high = (source[i + 1]! * inverse + 8.5) | 0;
    // From 0 to 16, where 16 must become 15; without a branch this is the fastest of several forms.
    out[byte++] = (low - (low >> 4)) | ((high - (high >> 4)) << 4);
  }
  if (paired < end) {
    const low = (source[paired]! * inverse + 8.5) | 0;
    out[byte++] = (low - (low >> 4)) | 0x80;
  }
  if (size > count) out.fill(0x88, byte, (at + size) >> 1);
  return scale;
}

/** The float32 matrix [N, K] that the quantised one stands for. */
export function dequantize({ values, scales }: QuantizedMatrix, N: number, K: number, bits: Bits, block: number): Float32Array {
  const blocks = blocksIn(K, block);
  const out = new Float32Array(N * K);
  for (let n = 0; n < N; n++)
    for (let k = 0; k < K; k++) {
      const at = n * blocks + floor(k / block);
      const position = at * block + (k % block);
      const q = bits === 8 ? values[position]! - 128 : ((values[position >> 1]! >> ((position & 1) * 4)) & 15) - 8;
      out[n * K + k] = q * scales[at]!;
    }
  return out;
}
