import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { FakeControlPlane } from '@matfleet/protocol/testing';
import { sharesOf, SpreadSimulation, type Share } from './spread.js';
import { summarise } from './statistics.js';

describe('a fleet in several processes', () => {
  let plane: FakeControlPlane;
  let fleet: SpreadSimulation | undefined;

  beforeEach(async () => {
    plane = await FakeControlPlane.start({ heartbeatMs: 100, leaseMs: 1_000 });
  });
  afterEach(async () => {
    await fleet?.stop();
    plane.stop();
  });
  const whole = (): Share => ({
    ...{ server: `https://localhost:${plane.port}`, joinToken: plane.joinToken, first: 0, devices: 5, seed: 3, ramp: 100 },
    ...{ reportsPerMinute: 0, modelMemoryBytes: [], script: undefined, history: undefined },
  });

  it('has every device once, adds up what its processes count, and leaves none of them behind', async () => {
    fleet = new SpreadSimulation(sharesOf(whole(), 2));
    await fleet.start();
    await plane.until('all to connect and beat', () => fleet!.counts().connected === 5 && fleet!.counts().beats >= 5);
    expect(new Set(plane.enrolments.map(({ deviceId }) => deviceId)).size).toBe(5);
    const { started, enrolled, sessions, errors, ackP99Ms } = summarise(fleet.counts());
    expect({ started, enrolled, sessions, errors }).toEqual({ started: 5, enrolled: 5, sessions: 5, errors: 0 });
    expect(ackP99Ms).toBeGreaterThan(0);
    await fleet.stop();
    await plane.until('all to be gone', () => new Set(plane.enrolments.map(({ deviceId }) => plane.connected(deviceId))).has(true) === false);
  }, 30_000);

  it('says so when one of its processes cannot go on', async () => {
    fleet = new SpreadSimulation(sharesOf({ ...whole(), joinToken: 'no token' }, 2));
    await expect(fleet.start()).rejects.toThrow('token');
  }, 30_000);
});

describe('sharesOf', () => {
  it('shares devices, ramp and history without a gap', () => {
    const share: Share = {
      server: '',
      joinToken: '',
      first: 0,
      devices: 10,
      seed: 1,
      ramp: 30,
      reportsPerMinute: 1,
      modelMemoryBytes: [],
      script: undefined,
      history: 'h',
    };
    expect(sharesOf(share, 3).map(({ first, devices, ramp, history }) => [first, devices, ramp, history])).toEqual([
      [0, 3, 10, 'h.1'],
      [3, 4, 10, 'h.2'],
      [7, 3, 10, 'h.3'],
    ]);
  });
});
