import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ASSIGNED, nextDescent, type Descent, type Signals } from './pressure.js';

const calm: Signals = { availableShare: 0.5, onBattery: false };
const starved: Signals = { ...calm, memoryFullPercent: 12 };
const between: Signals = { ...calm, memoryFullPercent: 7 };

/** Every second one reading. */
function after(seconds: number, signals: Signals, from: { descent: Descent; nowMs: number }, mostSteps = 3): { descent: Descent; nowMs: number } {
  let { descent, nowMs } = from;
  for (let second = 0; second < seconds; second++) descent = nextDescent(descent, signals, mostSteps, (nowMs += 1_000));
  return { descent, nowMs };
}
const begin = { descent: ASSIGNED, nowMs: 0 };

describe('a device under pressure', () => {
  it.each<[string, Partial<Signals>]>([
    ['memory: every process waited for it 12 % of the last 10 s', { memoryFullPercent: 12 }],
    ['memory: 3.0 % is available', { availableShare: 0.03 }],
    ['heat: 94 °C, the processor slows down from 95 °C', { temperatureCelsius: 94, throttlesAtCelsius: 95 }],
    ['battery: 14 %', { onBattery: true, batteryPercent: 14 }],
  ])('goes down at once: %s', (reason, signals) => {
    expect(after(1, { ...calm, ...signals }, begin).descent).toMatchObject({ steps: 1, reason });
  });

  it.each<Partial<Signals>>([
    { memoryFullPercent: 9 },
    { availableShare: 0.05 },
    { temperatureCelsius: 92, throttlesAtCelsius: 95 },
    { temperatureCelsius: 120 },
    { onBattery: false, batteryPercent: 3 },
  ])('stays where it is with %o', (signals) => {
    expect(after(100, { ...calm, ...signals }, begin).descent.steps).toBe(0);
  });

  it('goes down one slice in 5 s, and no further than there are slices', () => {
    expect([1, 5, 6, 11, 60].map((seconds) => after(seconds, starved, begin).descent.steps)).toEqual([1, 1, 2, 3, 3]);
  });

  it('climbs one slice after 30 s of calm, and neither climbs nor goes down between the thresholds', () => {
    const down = after(6, starved, begin);
    expect(after(1_000, between, down).descent.steps).toBe(2);
    expect([30, 31, 61, 62].map((seconds) => after(seconds, calm, down).descent.steps)).toEqual([2, 1, 0, 0]);
    expect(after(62, calm, down).descent.reason).toBe('');
  });

  it('waits twice as long each time that a climb has to be taken back, an hour at most, and 30 s again after one that held', () => {
    let at = after(1, starved, begin);
    const waits: number[] = [];
    for (let round = 0; round < 10; round++) {
      const from = at.nowMs;
      while (at.descent.steps > 0) at = after(1, calm, at);
      waits.push(Math.round((at.nowMs - from) / 1_000));
      at = after(6, calm, at);
      at = after(1, starved, at);
    }
    expect(waits.map((seconds) => Math.round(seconds / 30))).toEqual([1, 2, 4, 8, 16, 32, 64, 120, 120, 120]);
    while (at.descent.steps > 0) at = after(60, calm, at);
    at = after(601, calm, at);
    expect(after(1, starved, at).descent.holdOffMs).toBe(30_000);
  });

  it('is never above its assigned slice or below its smallest, whatever comes', () => {
    const signals = fc.constantFrom(calm, starved, between);
    fc.assert(
      fc.property(fc.array(fc.tuple(signals, fc.nat(3), fc.nat(120_000)), { maxLength: 200 }), (readings) => {
        let [descent, nowMs] = [ASSIGNED, 0];
        for (const [reading, mostSteps, passedMs] of readings) {
          const { steps } = descent;
          descent = nextDescent(descent, reading, mostSteps, (nowMs += passedMs));
          expect(descent.steps).toBeGreaterThanOrEqual(0);
          expect(descent.steps).toBeLessThanOrEqual(mostSteps);
          expect(descent.steps - Math.min(steps, mostSteps)).toBeLessThanOrEqual(1);
          expect(descent.steps === 0).toBe(descent.reason === '');
        }
      }),
      { endOnFailure: true },
    );
  });
});
