import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { normalQuantile } from './gemma3n.js';

describe('the normal quantile behind the sparse layers', () => {
  it('gives the published multiplier for a sparsity of 0.95', () => {
    expect(normalQuantile(0.95)).toBeCloseTo(1.6448536269514722, 12);
    expect(normalQuantile(0.5)).toBeCloseTo(0, 12);
  });

  it('is odd around one half and rises', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 0.499, noNaN: true }), (p) => {
        expect(normalQuantile(p)).toBeCloseTo(-normalQuantile(1 - p), 9);
        expect(normalQuantile(p)).toBeLessThan(normalQuantile(p + 0.001));
      }),
    );
  });
});
