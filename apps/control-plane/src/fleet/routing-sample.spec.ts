import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@matfleet/model';
import { sampleForRouting, type Routable } from './routing-sample.js';

const fleet = (count: number, runs: (i: number) => string | undefined, queued: (i: number) => number = () => 0): Routable[] =>
  Array.from({ length: count }, (_, i) => ({ deviceId: `d${i}`, runs: runs(i), queued: queued(i) }));

describe('sampleForRouting', () => {
  it('keeps the one device with the largest slice beside thousands with the small one', () => {
    const sample = sampleForRouting(
      fleet(10_000, (i) => (i === 4_321 ? 'large' : 'small')),
      64,
      seededRandom(1),
    );
    expect(sample.length).toBeLessThanOrEqual(64);
    expect(sample.filter(({ runs }) => runs === 'large').map(({ deviceId }) => deviceId)).toEqual(['d4321']);
    expect(sample.filter(({ runs }) => runs === 'small')).toHaveLength(32);
  });

  it('takes every device of a small fleet, and none that runs nothing', () => {
    const sample = sampleForRouting(
      fleet(10, (i) => (i < 7 ? 'small' : undefined)),
      64,
      seededRandom(1),
    );
    expect(new Set(sample.map(({ deviceId }) => deviceId)).size).toBe(7);
  });

  it('draws others each time, and idle ones before busy ones', () => {
    const devices = fleet(
      1_000,
      () => 'small',
      (i) => (i % 2 === 0 ? 5 : 0),
    );
    const random = seededRandom(1);
    const first = sampleForRouting(devices, 20, random);
    const second = sampleForRouting(devices, 20, random);
    expect([...first, ...second].every(({ queued }) => queued === 0)).toBe(true);
    expect(new Set([...first, ...second].map(({ deviceId }) => deviceId)).size).toBeGreaterThan(30);
  });
});
