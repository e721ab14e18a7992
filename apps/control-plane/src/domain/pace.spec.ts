import { describe, expect, it } from '@jest/globals';
import { LATE_MS, nextShare } from './pace.js';

describe('the share that a process takes of what comes', () => {
  const after = (share: number, lateMs: number, times: number): number =>
    Array.from({ length: times }).reduce<number>((now) => nextShare(now, lateMs), share);

  it('halves each time that the process was late, and never becomes nothing', () => {
    expect(after(1, LATE_MS + 1, 3)).toBe(0.125);
    expect(after(1, 10 * LATE_MS, 50)).toBe(0.02);
  });

  it('comes back to all of it within ten seconds of two looks a second once the process keeps up, and not beyond', () => {
    expect(after(0.02, 0, 20)).toBe(1);
    expect(after(0.02, 0, 10)).toBeLessThan(0.5);
  });

  it('stays where it is while the process is a little late', () => expect(nextShare(0.3, 0.75 * LATE_MS)).toBe(0.3));
});
