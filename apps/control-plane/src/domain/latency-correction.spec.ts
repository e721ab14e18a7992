import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { learnCorrection, MAX_CORRECTION, MIN_CORRECTION, relaxCorrection } from './latency-correction.js';

const learnTimes = (start: number, ratio: number, windows: number): number => {
  let correction = start;
  for (let i = 0; i < windows; i++) correction = learnCorrection(correction, { measuredMs: ratio * 3, predictedMs: 3, tokens: 64 });
  return correction;
};

describe('learnCorrection', () => {
  it('sees a device that turned 20 times slower in three windows, and its recovery in as many', () => {
    expect(learnTimes(1, 20, 3)).toBeGreaterThan(13);
    expect(learnTimes(20, 1, 3)).toBeLessThan(1.5);
  });
  it('lets a window of one token move little', () => {
    expect(learnCorrection(1, { measuredMs: 100, predictedMs: 1, tokens: 1 })).toBeLessThan(1.1);
  });
  it('stays between what it was and what was measured, and within its bounds', () => {
    const any = fc.double({ min: 1e-6, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(any, any, any, fc.integer({ min: 0, max: 10_000 }), (correction, measuredMs, predictedMs, tokens) => {
        const learned = learnCorrection(correction, { measuredMs, predictedMs, tokens });
        expect(learned).toBeGreaterThanOrEqual(MIN_CORRECTION);
        expect(learned).toBeLessThanOrEqual(MAX_CORRECTION);
        const clip = (x: number): number => Math.min(MAX_CORRECTION, Math.max(MIN_CORRECTION, x));
        const ends = [clip(correction), clip(measuredMs / predictedMs)];
        expect(learned).toBeGreaterThanOrEqual(Math.min(...ends) * (1 - 1e-9));
        expect(learned).toBeLessThanOrEqual(Math.max(...ends) * (1 + 1e-9));
      }),
    );
  });
});

describe('relaxCorrection', () => {
  it('forgets half of a 16-fold slowness, on a logarithmic scale, in one half-life', () => {
    expect(relaxCorrection(16, 60_000, 60_000)).toBeCloseTo(4);
    expect(relaxCorrection(16, 0, 60_000)).toBeCloseTo(16);
  });
});
