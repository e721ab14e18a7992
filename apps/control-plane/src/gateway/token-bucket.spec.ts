import { describe, expect, it } from '@jest/globals';
import { TokenBucket } from './token-bucket.js';

describe('TokenBucket', () => {
  it('lets a burst of 3 through, then 2 a second', () => {
    const bucket = new TokenBucket(2, 3, 0);
    expect([0, 0, 0, 0].map((ms) => bucket.take(ms))).toEqual([true, true, true, false]);
    expect([499, 500, 501].map((ms) => bucket.take(ms))).toEqual([false, true, false]);
    expect([10_000, 10_000, 10_000, 10_000].map((ms) => bucket.take(ms))).toEqual([true, true, true, false]);
  });
});
