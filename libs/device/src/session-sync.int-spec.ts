import { afterEach, describe, expect, it } from '@jest/globals';
import { InferenceEvent, Phase } from '@matfleet/protocol';
import { SessionRig } from './testing/session-rig.js';

const rig = new SessionRig();
afterEach(() => rig.end());

describe('a network that breaks streams', () => {
  it('is crossed by Sync after three streams without a Welcome: documents, heartbeats, reports and inferences get through', async () => {
    await rig.start({ refuseStreams: true, heartbeatMs: 100 });
    rig.plane.setDesired(rig.id, { generation: 2n });
    const device = rig.device();
    await rig.plane.until('the document', () => device.desired.length === 1);
    expect(device.session.online).toBe(true);
    expect(device.states.filter(({ online }) => !online)).toHaveLength(3);
    device.report(2, Phase.PHASE_ACTIVE);
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a', sequence: 1n }))).toBe(true);
    await rig.plane.until('the event', () => rig.plane.messages(rig.id, 'inferenceEvent').length === 1);
    const beats = rig.plane.messages(rig.id, 'heartbeat').length;
    await rig.plane.until('heartbeats', () => rig.plane.messages(rig.id, 'heartbeat').length >= beats + 2);
    expect(rig.plane.messages(rig.id, 'hello')).toHaveLength(1);
    expect(rig.reported()).toEqual(['2 PHASE_ACTIVE']);
  });

  it('keeps the device reachable: between two spells of Sync one stream is tried, without waiting', async () => {
    await rig.start({ refuseStreams: true, heartbeatMs: 100 });
    const device = rig.device({ syncAfter: 2, syncForMs: 300 });
    await rig.hellos(1);
    const since = Date.now();
    // Each spell begins with a Hello.
    await rig.hellos(4, 6_000);
    expect(Date.now() - since).toBeLessThan(4_000);
    const spell = ['streams do not get through', 'welcome', 'trying a stream again'];
    expect(device.states.map(({ why }) => why).slice(0, 10)).toEqual(['streams do not get through', ...spell, ...spell, ...spell]);
  });

  it('is not what a control plane is that nothing can connect to: no Sync is tried there, only streams', async () => {
    await rig.start({ heartbeatMs: 100 });
    const device = rig.device({ syncAfter: 1 });
    await rig.plane.until('the session', () => device.session.online);
    rig.die();
    await rig.plane.until('two failed streams', () => device.states.filter(({ online }) => !online).length >= 3);
    expect(device.states.slice(2).every(({ why }) => why.startsWith('No connection established'))).toBe(true);
  });

  it('is tried with a stream again when Sync fails too', async () => {
    const network = { refuseStreams: true, heartbeatMs: 100 };
    await rig.start(network);
    const device = rig.device({ syncAfter: 1 });
    await rig.plane.until('Sync', () => device.session.online);
    rig.die();
    await rig.plane.until('the loss', () => !device.session.online);
    network.refuseStreams = false;
    await rig.revive();
    await rig.plane.until('a stream', () => rig.plane.connected(rig.id) && device.session.online);
  });
});
