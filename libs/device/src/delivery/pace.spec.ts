import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { leftOfWindowMs, Pace, parseDailyWindow } from './pace.js';

const at = (hour: number, minute = 0, second = 0): Date => new Date(2031, 5, 1, hour, minute, second);
const HOUR_MS = 3_600_000;

describe('quiet hours', () => {
  it('are read as people write them, and nothing else is', () => {
    expect(parseDailyWindow('08:00-20:30')).toEqual({ fromMinute: 480, toMinute: 1_230 });
    for (const text of ['8:00-20:00', '08:00', '24:00-01:00', '08:60-09:00', '08:00-08:00', '']) expect(parseDailyWindow(text)).toBeUndefined();
  });

  it('reach over midnight', () => {
    const night = parseDailyWindow('22:00-06:00')!;
    expect([at(21, 59), at(22), at(0), at(5, 59, 30), at(6)].map((now) => leftOfWindowMs(night, now))).toEqual([
      0,
      8 * HOUR_MS,
      6 * HOUR_MS,
      30_000,
      0,
    ]);
  });

  it('end exactly when they say they will', () => {
    const minute = fc.nat(1_439);
    fc.assert(
      fc.property(minute, minute, minute, fc.nat(59), (fromMinute, toMinute, now, second) => {
        fc.pre(fromMinute !== toMinute);
        const window = { fromMinute, toMinute };
        const left = leftOfWindowMs(window, at(0, now, second));
        if (left > 0) expect(leftOfWindowMs(window, new Date(at(0, now, second).getTime() + left))).toBe(0);
        if (left > 1) expect(leftOfWindowMs(window, new Date(at(0, now, second).getTime() + left - 1))).toBe(1);
      }),
    );
  });

  it('last as long as the longest of those that overlap', () => {
    const pace = new Pace({ quietHours: [parseDailyWindow('08:00-12:00')!, parseDailyWindow('10:00-14:00')!], now: () => at(11) });
    expect(pace.quietMs()).toBe(3 * HOUR_MS);
  });
});
