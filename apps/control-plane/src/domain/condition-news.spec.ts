import { describe, expect, it } from '@jest/globals';
import { concernChanges, type Concerns, type Wellbeing } from './condition-news.js';

const well: Wellbeing = {
  ...{ memorySomePercent: 0, memoryFullPercent: 0, power: 'mains', batteryPercent: 80, temperatureCelsius: 50, throttlesAtCelsius: 95 },
};

describe('concernChanges', () => {
  it('tells once that a concern began, with its numbers, and once that it ended', () => {
    const hot = concernChanges([], { ...well, temperatureCelsius: 91 });
    expect(hot).toEqual({ concerns: ['heat'], changes: [{ concern: 'heat', began: true, reason: '91 °C, throttled from 95 °C on' }] });
    expect(concernChanges(hot.concerns, { ...well, temperatureCelsius: 92 }).changes).toEqual([]);
    expect(concernChanges(hot.concerns, { ...well, temperatureCelsius: 60 })).toMatchObject({
      concerns: [],
      changes: [{ concern: 'heat', began: false }],
    });
  });

  it('makes no news of a value that swings about a bound', () => {
    let concerns: Concerns = [];
    let news = 0;
    for (const memoryFullPercent of [11, 9, 10, 8, 12, 6, 10, 9]) {
      const step = concernChanges(concerns, { ...well, memoryFullPercent });
      concerns = step.concerns;
      news += step.changes.length;
    }
    expect(news).toBe(1);
  });

  it('leaves a concern as it was where the box does not tell', () => {
    const silent = {
      memorySomePercent: null,
      memoryFullPercent: null,
      power: null,
      batteryPercent: null,
      temperatureCelsius: null,
      throttlesAtCelsius: null,
    };
    expect(concernChanges(['heat', 'on-battery'], silent)).toEqual({ concerns: ['heat', 'on-battery'], changes: [] });
  });

  it('calls a battery low only while it is what the box runs on', () => {
    expect(concernChanges([], { ...well, batteryPercent: 12 }).concerns).toEqual([]);
    expect(concernChanges([], { ...well, power: 'battery', batteryPercent: 12 }).concerns).toEqual(['low-battery', 'on-battery']);
  });
});
