import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { decodeLayer, encodeRow, rowBytes, type PleRowFormat } from './ple-rows.js';
import { blockFor, dequantize, quantize } from './quantize.js';

const value = fc.float({ min: -4, max: 4, noNaN: true });

describe('block quantisation', () => {
  it('errs by at most half a step of its block: 1/127 of the block maximum in int8, 1/8 in int4', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 8 as const),
        fc.constantFrom(16, 32),
        fc.array(value, { minLength: 40, maxLength: 40 }),
        (bits, block, values) => {
          const matrix = Float32Array.from([...values, ...values.map((v) => -v)]);
          const back = dequantize(quantize(matrix, 2, 40, bits, block), 2, 40, bits, block);
          for (let n = 0; n < 2; n++)
            for (let k = 0; k < 40; k++) {
              const start = n * 40 + Math.floor(k / block) * block;
              const peak = matrix.slice(start, Math.min(start + block, (n + 1) * 40)).reduce((max, v) => Math.max(max, Math.abs(v)), 0);
              // In int4 the end without the extra step may clip by a whole one.
              const bound = bits === 8 ? peak / 127 / 2 : peak / 8;
              expect(Math.abs(back[n * 40 + k]! - matrix[n * 40 + k]!)).toBeLessThanOrEqual(bound * 1.001 + 1e-7);
            }
        },
      ),
    );
  });

  it.each([4, 8] as const)('stays within its %d-bit codes for the smallest numbers that float32 has', (bits) => {
    const step = 2 ** -149;
    for (const peak of [1, 3, 11, 12, 13, 1000]) {
      const matrix = Float32Array.from({ length: 32 }, (_, i) => step * peak * (i % 2 ? 1 : -1));
      for (const value of dequantize(quantize(matrix, 1, 32, bits, 16), 1, 32, bits, 16))
        expect(Math.abs(value)).toBeLessThanOrEqual(1.01 * peak * step);
    }
  });

  it('quantises again to the same values, so that a package made twice is the same package', () => {
    const matrix = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    expect(quantize(matrix, 1, 64, 4, 32)).toEqual(quantize(matrix.slice(), 1, 64, 4, 32));
  });

  it('takes the largest power of two that fits the request and the input, at least 16, dividing a band', () => {
    expect(blockFor(64, 2048)).toBe(64);
    expect(blockFor(128, 100)).toBe(64);
    expect(blockFor(64, 96, true)).toBe(32);
    expect(blockFor(64, 40, true)).toBeUndefined();
    expect(blockFor(64, 8)).toBeUndefined();
  });
});

describe('a row of per-layer embeddings', () => {
  it('comes back within a step of its block, for any number of layers, odd widths included', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 8 as const, 32 as const),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 33 }),
        fc.infiniteStream(value),
        (bits, layers, width, stream) => {
          const format: PleRowFormat = { layers, width, bits, block: 16 };
          const row = Float32Array.from({ length: layers * width }, () => stream.next().value as number);
          const bytes = new Uint8Array(rowBytes(format) + 3);
          encodeRow(format, row, bytes, 3);
          const back = new Float32Array(layers * width);
          for (let layer = 0; layer < layers; layer++) decodeLayer(format, bytes.subarray(3), layer, 1, back, layer * width);
          const peak = row.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
          const bound = { 4: peak / 8, 8: peak / 254, 32: 0 }[bits];
          row.forEach((v, i) => expect(Math.abs(back[i]! - v)).toBeLessThanOrEqual(bound * 1.001 + 1e-7));
        },
      ),
    );
  });
});
