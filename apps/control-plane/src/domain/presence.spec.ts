import { describe, expect, it } from '@jest/globals';
import { afterFailure, afterSuccess, CLOSED } from './breaker.js';
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
  const fleet = (dead: number, alive: number): Lease[] => [
    ...Array.from({ length: dead }, (_, i) => lease(0, true, `dead-${i}`)),
    ...Array.from({ length: alive }, (_, i) => lease(19_000, true, `alive-${i}`)),
  ];
  it('expires the three leases that ran out', () => {
    expect(sweepLeases(fleet(3, 1), 20_000, terms, 5_000, 5_000, false)).toMatchObject({ expired: ['dead-0', 'dead-1', 'dead-2'], braked: false });
  });
  it('brakes when 30 of 100 run out at once, and believes the second sweep', () => {
    expect(sweepLeases(fleet(30, 70), 20_000, terms, 5_000, 5_000, false)).toMatchObject({
      expired: [],
      braked: true,
      reason: '30 of 100 leases ran out in one sweep',
    });
    expect(sweepLeases(fleet(30, 70), 20_000, terms, 5_000, 5_000, true).expired).toHaveLength(30);
  });
  it('brakes when this process slept for a minute', () => {
    expect(sweepLeases(fleet(1, 0), 60_000, terms, 60_000, 5_000, false)).toMatchObject({ expired: [], braked: true });
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

describe('breaker', () => {
  it('opens for 5 s at the third failure in a row, then twice as long, and closes with a success', () => {
    const two = afterFailure(afterFailure(CLOSED, 0), 0);
    expect(two.openUntilMs).toBe(0);
    const three = afterFailure(two, 1_000);
    expect(three.openUntilMs).toBe(6_000);
    expect(afterFailure(three, 6_000).openUntilMs).toBe(16_000);
    expect(afterSuccess()).toEqual(CLOSED);
  });
});
