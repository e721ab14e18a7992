import { describe, expect, it } from '@jest/globals';
import { fence, nextGeneration } from './epoch.js';
import { presence, sweepLeases, type Lease } from './presence.js';

const terms = { heartbeatMs: 5_000, leaseMs: 15_000 };
const lease = (lastBeatMs: number, connected = true, deviceId = 'd'): Lease => ({ deviceId, lastBeatMs, connected });

describe('presence', () => {
  it.each([
    [7_500, true, 'online'],
    [7_501, true, 'suspect'],
    [15_000, true, 'suspect'],
    [15_001, true, 'offline'],
    [100, false, 'suspect'],
  ] as const)('after %i ms of silence, connected %s: %s', (silentMs, connected, expected) => {
    expect(presence(lease(0, connected), silentMs, terms)).toBe(expected);
  });

  it('is offline without a lease', () => expect(presence(undefined, 0, terms)).toBe('offline'));
});

describe('sweepLeases', () => {
  const everySecond = { sinceSweepMs: 1_000, sweepMs: 1_000, sinceBrakeMs: Infinity };
  const fleet = (dead: number, alive: number, deadSinceMs = 0): Lease[] => [
    ...Array.from({ length: dead }, (_, i) => lease(deadSinceMs, true, `dead-${i}`)),
    ...Array.from({ length: alive }, (_, i) => lease(19_000, true, `alive-${i}`)),
  ];
  it('expires the three leases that ran out', () => {
    expect(sweepLeases(fleet(3, 1), 20_000, terms, everySecond)).toEqual({ expired: ['dead-0', 'dead-1', 'dead-2'], brake: null });
  });
  it('brakes when 30 of 100 fell silent together, although in this second only one lease runs out', () => {
    const leases = [lease(0, true, 'first'), ...fleet(29, 70, 4_500)];
    expect(sweepLeases(leases, 15_001, terms, everySecond)).toEqual({ expired: [], brake: '30 of 100 devices fell silent within one beat' });
    expect(sweepLeases([lease(0, true, 'first'), ...fleet(19, 80, 4_500)], 15_001, terms, everySecond).expired).toEqual(['first']);
  });
  it('believes what is still silent when the leases that the brake extended have run out', () => {
    expect(sweepLeases(fleet(30, 70), 20_000, terms, { ...everySecond, sinceBrakeMs: 20_000 }).expired).toHaveLength(30);
    expect(sweepLeases(fleet(30, 70), 20_000, terms, { ...everySecond, sinceBrakeMs: 31_000 }).expired).toEqual([]);
  });
  it('brakes when this process slept for a minute', () => {
    expect(sweepLeases(fleet(1, 0), 60_000, terms, { ...everySecond, sinceSweepMs: 60_000 })).toEqual({
      expired: [],
      brake: expect.stringContaining('slept for 60000 ms'),
    });
  });
});

describe('fence', () => {
  it('lets only the newest epoch through', () => {
    expect(fence(3n, 3n).kind).toBe('current');
    expect(fence(3n, 2n)).toEqual({ kind: 'stale', reason: 'epoch 2 was replaced by epoch 3' });
    expect(fence(3n, 4n).kind).toBe('stale');
  });
  it('gives a generation beyond ours and beyond what the device stored', () => {
    expect(nextGeneration(4n, 2n)).toBe(5n);
    expect(nextGeneration(1n, 9n)).toBe(10n);
  });
});
