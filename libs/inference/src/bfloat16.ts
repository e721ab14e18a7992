/** Rounds float32 values in place to the nearest bfloat16 number, ties to even: the upper half of a float32. */
export function roundToBfloat16(values: Float32Array): Float32Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) & 0xffff0000;
  return values;
}

/** Two bytes per value, little-endian, of values that are bfloat16 numbers already; others lose their lower half. */
export function toBfloat16(values: Float32Array): Uint8Array {
  const halves = new Uint16Array(values.buffer, values.byteOffset, 2 * values.length);
  const upper = new Uint16Array(values.length);
  for (let i = 0; i < upper.length; i++) upper[i] = halves[2 * i + 1]!;
  return new Uint8Array(upper.buffer);
}
