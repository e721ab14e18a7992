import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { afterExit, defaultRestartPolicy as policy } from './restart-policy.js';

describe('restart policy', () => {
  it('restarts within 200 ms after the first crash and doubles from there', () => {
    expect([0, 1, 2, 3].map((before) => afterExit(policy, before, 0, 0.999_999).delayMs)).toEqual([200, 400, 800, 1600]);
  });

  it('never waits more than 30 s, however often it crashed', () => {
    fc.assert(
      fc.property(fc.nat(5_000), fc.nat(9_999), fc.double({ min: 0, max: 0.999, noNaN: true }), (before, ranMs, chance) => {
        const { delayMs, exits } = afterExit(policy, before, ranMs, chance);
        expect(delayMs).toBeGreaterThanOrEqual(100);
        expect(delayMs).toBeLessThanOrEqual(30_000);
        expect(exits).toBe(before + 1);
      }),
    );
  });

  it('starts the count anew after 10 s of health', () => {
    expect(afterExit(policy, 40, 10_000, 0)).toEqual({ exits: 1, delayMs: 100, crashLooping: false });
  });

  it('calls the fifth exit in a row a crash loop', () => {
    expect([3, 4].map((before) => afterExit(policy, before, 1_000, 0).crashLooping)).toEqual([false, true]);
  });
});
