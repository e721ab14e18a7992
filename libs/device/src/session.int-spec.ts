import { afterEach, describe, expect, it } from '@jest/globals';
import { InferenceEvent, LatencyReport, Phase, StartInference } from '@matfleet/protocol';
import { SessionRig } from './testing/session-rig.js';

const rig = new SessionRig();
afterEach(() => rig.end());

describe('a session', () => {
  it('beats at one pace when a second Welcome comes', async () => {
    await rig.start({ heartbeatMs: 200 });
    rig.device();
    await rig.plane.until('a heartbeat', () => rig.plane.messages(rig.id, 'heartbeat').length > 0);
    for (let i = 0; i < 5; i++)
      rig.plane.send(rig.id, {
        message: {
          $case: 'welcome',
          value: { epoch: 1n, deviceId: rig.id, heartbeatMs: 200, leaseMs: 10_000, reconnectJitterMs: 0, serverTimeUnixMs: 0n },
        },
      });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = rig.plane.messages(rig.id, 'heartbeat').length;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    // Five in a second at 200 ms; six timers would send thirty.
    expect(rig.plane.messages(rig.id, 'heartbeat').length - before).toBeLessThan(10);
  });

  it('says Hello before anything else, then receives the desired document and beats at the pace of the Welcome', async () => {
    await rig.start({ heartbeatMs: 100 });
    rig.plane.setDesired(rig.id, { generation: 3n, modelVersionId: 'v1', sliceId: 'small', contextTokens: 512 });
    const device = rig.device();
    device.report(2, Phase.PHASE_ACTIVE);
    await rig.plane.until('three heartbeats', () => rig.plane.messages(rig.id, 'heartbeat').length >= 3);
    expect(rig.plane.received[0]!.request.message!.$case).toBe('hello');
    expect(rig.plane.messages(rig.id, 'hello')).toHaveLength(1);
    expect(device.desired).toMatchObject([{ generation: 3n, modelVersionId: 'v1', sliceId: 'small', contextTokens: 512 }]);
    expect(rig.plane.messages(rig.id, 'heartbeat').map(({ sequence }) => sequence)).toEqual(expect.arrayContaining([1n, 2n, 3n]));
    expect(device.states).toEqual([{ online: true, why: 'welcome' }]);
    expect(device.session.online).toBe(true);
  });

  it('tells how long the last heartbeat took to be acknowledged, from the first acknowledgement on', async () => {
    await rig.start({ heartbeatMs: 100 });
    rig.device();
    const told = await rig.plane.until('a round trip', () => {
      const beats = rig.plane.messages(rig.id, 'heartbeat');
      return beats.some(({ condition }) => condition) && beats.map(({ condition }) => condition?.roundTripMs);
    });
    expect(told[0]).toBeUndefined();
    expect(told.at(-1)).toBeGreaterThan(0);
    expect(told.at(-1)).toBeLessThan(5_000);
  });

  it('hands over documents and inferences as they come', async () => {
    await rig.start();
    const device = rig.device();
    await rig.plane.until('the session', () => device.session.online && rig.plane.connected(rig.id));
    rig.plane.setDesired(rig.id, { generation: 1n });
    rig.plane.startInference(rig.id, StartInference.fromPartial({ attemptId: 'a' }));
    rig.plane.send(rig.id, { message: { $case: 'cancelInference', value: { attemptId: 'a' } } });
    await rig.plane.until('the cancellation', () => device.inferences.length === 2);
    expect(device.inferences).toEqual(['start a', 'cancel a']);
    expect(device.generations).toEqual([1n]);
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a', sequence: 1n }))).toBe(true);
    await rig.plane.until('the event', () => rig.plane.messages(rig.id, 'inferenceEvent').length === 1);
  });
});

describe('a session that was cut', () => {
  it('resumes by generation: of what was decided meanwhile only the newest document comes', async () => {
    await rig.start();
    rig.plane.setDesired(rig.id, { generation: 3n });
    const device = rig.device();
    await rig.plane.until('the document', () => device.desired.length === 1);
    rig.plane.disconnect(rig.id);
    rig.plane.setDesired(rig.id, { generation: 4n });
    rig.plane.setDesired(rig.id, { generation: 5n });
    await rig.plane.until('the newest document', () => device.desired.length === 2);
    expect(rig.plane.messages(rig.id, 'hello').map(({ storedGeneration }) => storedGeneration)).toEqual([0n, 3n]);
    expect(device.generations).toEqual([3n, 5n]);
  });

  it('comes back by itself within seconds once the control plane is there again, and tells why it was away', async () => {
    await rig.start();
    const device = rig.device();
    await rig.plane.until('the session', () => device.session.online);
    rig.die();
    await rig.plane.until('the loss', () => !device.session.online);
    expect(device.states.at(-1)).toMatchObject({ online: false, why: expect.stringMatching(/.+/) as unknown });
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a' }))).toBe(false);
    await rig.revive();
    await rig.hellos(2, 8_000);
    await rig.plane.until('the session', () => device.session.online);
  });

  it('sends what was reported meanwhile, and again what was not acknowledged: the newest of each generation', async () => {
    await rig.start({ heartbeatMs: 100 });
    const device = rig.device();
    device.report(1, Phase.PHASE_FETCHING);
    device.report(1, Phase.PHASE_ACTIVE);
    await rig.plane.until('the report', () => rig.reported().length > 0);
    // The stream keeps its order: the acknowledgement is here once this document is.
    rig.plane.setDesired(rig.id, { generation: 1n });
    await rig.plane.until('the document', () => device.desired.length === 1);
    rig.plane.acknowledge = false;
    device.report(2, Phase.PHASE_FETCHING);
    device.report(2, Phase.PHASE_ACTIVE);
    await rig.plane.until('the reports', () => rig.reported().length >= 3);
    rig.plane.acknowledge = true;
    rig.plane.disconnect(rig.id);
    await rig.hellos(2);
    const beats = rig.plane.messages(rig.id, 'heartbeat').length;
    await rig.plane.until('heartbeats, which come after the reports', () => rig.plane.messages(rig.id, 'heartbeat').length >= beats + 3);
    expect(rig.reported()).toEqual(['1 PHASE_ACTIVE', '2 PHASE_FETCHING', '2 PHASE_ACTIVE', '2 PHASE_ACTIVE']);
  });

  it('brings measured latency again when its heartbeat was not acknowledged, and not when it was', async () => {
    await rig.start({ heartbeatMs: 100 });
    const device = rig.device();
    const measured = () => rig.plane.messages(rig.id, 'heartbeat').flatMap(({ latency }) => latency.map(({ sliceId }) => sliceId));
    device.latency.push(LatencyReport.fromPartial({ sliceId: 'acknowledged' }));
    await rig.plane.until('the latency', () => measured().length === 1);
    rig.plane.setDesired(rig.id, { generation: 1n });
    await rig.plane.until('its acknowledgement', () => device.desired.length === 1);
    rig.plane.acknowledge = false;
    device.latency.push(LatencyReport.fromPartial({ sliceId: 'lost' }));
    await rig.plane.until('the latency', () => measured().length === 2);
    rig.plane.acknowledge = true;
    rig.plane.disconnect(rig.id);
    await rig.plane.until('the latency again', () => measured().length === 3);
    expect(measured()).toEqual(['acknowledged', 'lost', 'lost']);
  });

  it('waits a random part of the window that the Welcome named, so that a fleet does not come back at once', async () => {
    await rig.start({ reconnectJitterMs: 1_000 });
    rig.device({ random: () => 0.5 });
    await rig.hellos(1);
    await rig.plane.until('the session', () => rig.plane.connected(rig.id));
    const cutAt = Date.now();
    rig.plane.disconnect(rig.id);
    await rig.hellos(2);
    // Half of the second window of 2 s, and half of the jitter.
    expect(Date.now() - cutAt).toBeGreaterThanOrEqual(1_450);
  });
});

describe('a control plane that goes silent', () => {
  it('is given up after the lease, and dialled again', async () => {
    await rig.start({ leaseMs: 1_000 });
    rig.plane.acknowledge = false;
    const device = rig.device();
    await rig.hellos(2);
    expect(device.states.slice(0, 2)).toEqual([
      { online: true, why: 'welcome' },
      { online: false, why: 'nothing came from the control plane for 1000 ms' },
    ]);
  });

  it('is dialled on a new connection: one that swallows everything without ending is left to itself', async () => {
    await rig.start({ leaseMs: 1_000, heartbeatMs: 200 });
    const device = rig.device();
    await rig.hellos(1);
    await rig.plane.until('the session', () => device.session.online);
    rig.wire.forget();
    const since = Date.now();
    await rig.hellos(2);
    // The lease of 1 s and what a busy machine adds; the channel's own keepalive would take 35 s.
    expect(Date.now() - since).toBeLessThan(5_000);
    await rig.plane.until('the session', () => device.session.online);
  });

  it('is given up when no Welcome comes', async () => {
    await rig.start();
    const mute = await rig.mute();
    const device = rig.device({ url: mute.url, welcomeTimeoutMs: 200, syncAfter: 100 });
    await rig.plane.until('the end of the attempt', () => device.states.length > 0);
    expect(device.states[0]).toEqual({ online: false, why: 'nothing came from the control plane for 200 ms' });
  });
});

describe('a control plane that is full', () => {
  it('is dialled again at the moment that it names, again and again, without a backoff on top', async () => {
    const full: { retryAfterMs: number | undefined } = { retryAfterMs: 300 };
    await rig.start(full);
    const startedAt = Date.now();
    const device = rig.device({ random: () => 0.9 });
    await rig.plane.until('the fifth refusal', () => rig.plane.turnedAway === 5);
    const waitedMs = Date.now() - startedAt;
    expect(waitedMs).toBeGreaterThanOrEqual(4 * 300);
    // Two failures in a row would wait 3.6 s, five a minute.
    expect(waitedMs).toBeLessThan(3_500);
    full.retryAfterMs = undefined;
    await rig.plane.until('the session', () => device.session.online);
  });
});

describe('Drain', () => {
  it('makes the device come back within its window, not after a failure of growing length, and is passed on as the reason', async () => {
    await rig.start();
    const device = rig.device({ random: () => 0.9 });
    for (let round = 1; round <= 2; round++) {
      await rig.hellos(round);
      await rig.plane.until('the session', () => device.session.online && rig.plane.connected(rig.id));
      rig.plane.send(rig.id, { message: { $case: 'drain', value: { withinMs: 600, reason: 'an upgrade' } } });
      rig.plane.setDesired(rig.id, { generation: BigInt(round) });
      await rig.plane.until('what follows the drain', () => device.desired.length === round);
      // It still serves until the control plane closes the session.
      expect(device.session.online).toBe(true);
      rig.plane.disconnect(rig.id);
      const cutAt = Date.now();
      await rig.plane.until('the loss', () => !device.session.online);
      expect(device.lastWhy).toBe('the control plane asks to come back later: an upgrade');
      await rig.hellos(round + 1);
      const awayMs = Date.now() - cutAt;
      expect(awayMs).toBeGreaterThanOrEqual(500);
      // The second failure in a row would wait 3.6 s.
      expect(awayMs).toBeLessThan(3_000);
    }
  });
});
