import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { failuresAfter, HEALTHY_MS, retryPlan } from './backoff.js';

describe('the wait before a session is tried again', () => {
  it('doubles its window from 1 s to 64 s', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7, 100].map((failures) => retryPlan(failures, 0).windowMs)).toEqual(
      [1, 2, 4, 8, 16, 32, 64, 64, 64].map((seconds) => seconds * 1_000),
    );
  });

  it('places the attempt inside the window, wherever chance falls', () => {
    fc.assert(
      fc.property(fc.nat({ max: 50 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (failures, chance) => {
        const { beforeMs, windowMs } = retryPlan(failures, chance);
        expect(beforeMs).toBeGreaterThanOrEqual(0);
        expect(beforeMs).toBeLessThan(windowMs);
      }),
    );
  });
});

describe('failures in a row', () => {
  it('grow without bound while nobody says Welcome', () => {
    expect(failuresAfter(6, 0)).toBe(7);
  });

  it('start anew after a healthy session', () => {
    expect(failuresAfter(40, HEALTHY_MS)).toBe(0);
  });

  it('stay at windows of 16 s while sessions begin well and end soon, as when a control plane restarts again and again', () => {
    let failures = 0;
    for (let i = 0; i < 20; i++) failures = failuresAfter(failures, 3_000);
    expect(retryPlan(failures, 0).windowMs).toBe(16_000);
    expect(retryPlan(failuresAfter(30, 3_000), 0).windowMs).toBe(16_000);
  });
});
