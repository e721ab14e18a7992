/** Types of published weights that are read, and bytes per value. */
export const VALUE_BYTES = { F32: 4, BF16: 2, F16: 2 } as const;
export type ValueType = keyof typeof VALUE_BYTES;

/** Some rows of a published tensor as its file holds them. */
export interface RawRows {
  /** Names tensor and file in errors. */
  readonly origin: string;
  readonly dtype: ValueType;
  /** All of a buffer of their own. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly firstRow: number;
  readonly rows: number;
  /** Values in a row: 1 for a vector. */
  readonly width: number;
}

/** Fills `out` with the values of one row (0 is the first one here), from a column on, as float32. Throws on one that is not finite. */
export function decodeValues(piece: RawRows, row: number, fromColumn: number, out: Float32Array): void {
  const at = row * piece.width + fromColumn;
  const finite = decoders[piece.dtype](piece.bytes, at, out);
  if (finite) return;
  const i = out.findIndex((value) => !Number.isFinite(value));
  const place = [piece.firstRow + row, ...(piece.width > 1 ? [fromColumn + i] : [])];
  throw new Error(`${piece.origin} holds ${out[i]} at [${place.join(', ')}]`);
}

const decoders: Record<ValueType, (bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array) => boolean> = {
  F32: (bytes, at, out) => {
    out.set(new Float32Array(bytes.buffer, bytes.byteOffset + at * 4, out.length));
    return out.every(Number.isFinite);
  },
  BF16: (bytes, at, out) => {
    const halves = new Uint16Array(bytes.buffer, bytes.byteOffset + at * 2, out.length);
    const words = new Int32Array(out.buffer, out.byteOffset, out.length);
    let exponents = 0;
    for (let i = 0; i < words.length; i++) {
      const half = halves[i]!;
      words[i] = half << 16;
      // All ones in the exponent mean infinity or NaN, and carry into bit 15 here; the sign is out of the way.
      exponents |= (half & 0x7fff) + 0x80;
    }
    return (exponents & 0x8000) === 0;
  },
  F16: (bytes, at, out) => {
    const halves = new Uint16Array(bytes.buffer, bytes.byteOffset + at * 2, out.length);
    for (let i = 0; i < out.length; i++) out[i] = halfToFloat(halves[i]!);
    return out.every(Number.isFinite);
  },
};

function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
