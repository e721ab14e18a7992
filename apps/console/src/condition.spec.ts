import { describe, expect, it } from '@jest/globals';
import type { Condition } from './api-types.js';
import { conditionFacts } from './condition.js';

const silent: Condition = {
  memoryFullPercent: null,
  power: null,
  batteryPercent: null,
  temperatureCelsius: null,
  throttlesAtCelsius: null,
  roundTripMs: null,
};

describe('the condition of a box, in words', () => {
  it('says nothing of a box that tells nothing, or that is well and on mains', () => {
    expect(conditionFacts(null)).toEqual([]);
    expect(conditionFacts({ ...silent, memoryFullPercent: 0.4, power: 'mains', batteryPercent: 100 })).toEqual([]);
  });

  it('puts what troubles a box first', () => {
    const facts = conditionFacts({
      memoryFullPercent: 12.34,
      power: 'battery',
      batteryPercent: 55,
      temperatureCelsius: 92,
      throttlesAtCelsius: 95,
      roundTripMs: 41.26,
    });
    expect(facts).toEqual([
      { text: 'waits for memory 12.3 % of the time', tone: 'warn' },
      { text: '92 °C of 95', tone: 'warn' },
      { text: 'on battery, 55 %', tone: 'calm' },
      { text: '41.3 ms away', tone: 'calm' },
    ]);
  });

  it('warns of a battery that is nearly empty, and not of heat whose limit is unknown', () => {
    expect(conditionFacts({ ...silent, power: 'battery', batteryPercent: 20, temperatureCelsius: 99 })).toEqual([
      { text: 'on battery, 20 %', tone: 'warn' },
      { text: '99 °C', tone: 'calm' },
    ]);
  });
});
