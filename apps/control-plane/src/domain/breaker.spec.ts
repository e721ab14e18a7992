import { describe, expect, it } from '@jest/globals';
import { afterFailure, afterNeither, CLOSED, closedToWorkUntilMs, whileTried, type Breaker } from './breaker.js';

const failing = (times: number, nowMs: number): Breaker => Array.from({ length: times }).reduce<Breaker>((one) => afterFailure(one, nowMs), CLOSED);

describe('a breaker', () => {
  it('opens at the third failure in a row, for 5 s, and then for twice as long each time, 5 minutes at most', () => {
    expect([1, 2, 3, 4, 5, 9, 40].map((times) => closedToWorkUntilMs(failing(times, 0)))).toEqual([0, 0, 5_000, 10_000, 20_000, 300_000, 300_000]);
  });

  it('lets one attempt probe when its time is over, and the next one only after that has said nothing', () => {
    const open = failing(3, 0);
    const probing = whileTried(open, 6_000);
    expect(closedToWorkUntilMs(probing)).toBeGreaterThan(6_000);
    expect(closedToWorkUntilMs(afterNeither(probing))).toBe(5_000);
    expect(closedToWorkUntilMs(afterFailure(probing, 7_000))).toBe(17_000);
  });

  it('counts no attempt as a probe while it is closed', () => {
    expect(closedToWorkUntilMs(whileTried(failing(2, 0), 100))).toBe(0);
    expect(closedToWorkUntilMs(whileTried(CLOSED, 100))).toBe(0);
  });

  it('whose probe was lost lets another one through a minute later', () => {
    expect(closedToWorkUntilMs(whileTried(failing(3, 0), 6_000))).toBe(66_000);
  });
});
