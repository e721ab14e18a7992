import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { countsUpTo, emptyHistogram, Histogram, histogramOf, maxBuckets, mean, mergeHistograms, quantile, quantileErrorFactor } from './histogram.js';

const anySample = fc.array(
  fc.oneof(fc.constant(0), fc.double({ min: 1e-3, max: 1e6, noNaN: true }), fc.double({ min: 5e-324, max: 1e300, noNaN: true })),
  {
    maxLength: 60,
  },
);

/** Sums of doubles depend on the order of addition; everything else is exact. */
const exact = ({ sum: _sum, ...rest }: Histogram) => rest;

describe('histogram', () => {
  it('merges two into the histogram of both samples', () => {
    fc.assert(
      fc.property(anySample, anySample, (a, b) => {
        const merged = mergeHistograms(histogramOf(a), histogramOf(b));
        const both = histogramOf([...a, ...b]);
        expect(exact(merged)).toEqual(exact(both));
        expect(merged.sum).toBeCloseTo(both.sum, both.sum > 1e6 ? -300 : 3);
      }),
    );
  });

  it('has the empty histogram as its neutral element', () => {
    fc.assert(fc.property(anySample, (a) => expect(mergeHistograms(emptyHistogram, histogramOf(a))).toEqual(histogramOf(a))));
  });

  it('counts the values up to a power of two exactly', () => {
    const sample = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 1e5, noNaN: true }), fc.constantFrom(1, 2, 64)), { maxLength: 60 });
    const bounds = [0.5, 1, 2, 64, 4096, 2 ** 20];
    fc.assert(
      fc.property(sample, (values) =>
        expect(countsUpTo(histogramOf(values), bounds)).toEqual(bounds.map((bound) => values.filter((value) => value <= bound).length)),
      ),
    );
  });

  it('never holds more than 320 buckets and always adds up', () => {
    fc.assert(
      fc.property(anySample, (a) => {
        const h = histogramOf(a);
        expect(h.counts.length).toBeLessThanOrEqual(maxBuckets);
        expect(Histogram.safeParse(h).success).toBe(true);
      }),
    );
  });

  it('answers the least of doubles for a bucket whose middle lies below it', () => {
    expect(quantile(histogramOf([2.57e61, 5e-324]), 0)).toBe(5e-324);
  });

  it('answers a nearest-rank quantile within its stated error, also after merging', () => {
    fc.assert(
      fc.property(anySample, anySample, fc.double({ min: 0, max: 1, noNaN: true }), (a, b, q) => {
        const all = [...a, ...b].sort((x, y) => x - y);
        const h = mergeHistograms(histogramOf(a), histogramOf(b));
        const estimate = quantile(h, q);
        if (all.length === 0) return expect(estimate).toBeUndefined();
        const actual = all[Math.max(1, Math.ceil(q * all.length)) - 1]!;
        if (actual === 0) return expect(estimate).toBe(0);
        const tolerance = quantileErrorFactor(h) * (1 + 1e-9);
        // In logarithms, since a product may leave the range of doubles.
        return expect(Math.abs(Math.log2(estimate!) - Math.log2(actual))).toBeLessThanOrEqual(Math.log2(tolerance) + 1e-6);
      }),
    );
  });

  it('keeps milliseconds from 0.01 to 100000 within 4.5 %', () => {
    const h = histogramOf(Array.from({ length: 1000 }, (_, i) => 10 ** (-2 + (7 * i) / 999)));
    expect(quantileErrorFactor(h)).toBeLessThan(1.045);
    expect(quantile(h, 0.5)! / 10 ** 1.5).toBeCloseTo(1, 1);
    expect(mean(histogramOf([1, 2, 6]))).toBe(3);
    expect(mean(emptyHistogram)).toBeUndefined();
  });

  it('counts a power of the base in the bucket below it, as the contract says', () => {
    expect(histogramOf([1]).offset).toBe(-1);
    expect(histogramOf([2]).offset).toBe(15);
    expect(histogramOf([2.0001]).offset).toBe(16);
  });

  it('refuses negative and non-finite values by name', () => {
    expect(() => histogramOf([-1])).toThrow('not -1');
    expect(() => histogramOf([NaN])).toThrow('not NaN');
  });

  it('refuses a histogram whose buckets do not add up', () => {
    expect(Histogram.safeParse({ ...histogramOf([1, 2]), count: 7 }).success).toBe(false);
  });
});
