import { describe, expect, it } from '@jest/globals';
import { backoffMs } from './backoff.js';

describe('backoff', () => {
  it('doubles up to 15 s and never waits less than half of that', () => {
    expect([0, 1, 2, 3].map((attempt) => backoffMs(attempt, 1))).toEqual([500, 1000, 2000, 4000]);
    expect(backoffMs(5_000, 1)).toBe(15_000);
    expect(backoffMs(5_000, 0)).toBe(7_500);
  });
});
