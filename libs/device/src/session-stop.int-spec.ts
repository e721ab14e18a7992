import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from '@jest/globals';
import { SessionRig, within } from './testing/session-rig.js';

const rig = new SessionRig();
afterEach(() => rig.end());

describe('stopping', () => {
  it('ends the session on both sides, and says so', async () => {
    await rig.start();
    const device = rig.device();
    await rig.plane.until('the session', () => device.session.online && rig.plane.connected(rig.id));
    await device.stop();
    expect(device.states.at(-1)).toEqual({ online: false, why: 'the agent stops' });
    await rig.plane.until('the end of the stream', () => !rig.plane.connected(rig.id));
    const beats = rig.plane.messages(rig.id, 'heartbeat').length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(rig.plane.messages(rig.id, 'heartbeat')).toHaveLength(beats);
    expect(rig.plane.messages(rig.id, 'hello')).toHaveLength(1);
  });

  it('does not wait for the next attempt', async () => {
    await rig.start();
    const device = rig.device({ random: () => 0.5 });
    await rig.plane.until('the session', () => device.session.online && rig.plane.connected(rig.id));
    rig.plane.send(rig.id, { message: { $case: 'drain', value: { withinMs: 60_000, reason: 'a long upgrade' } } });
    rig.plane.setDesired(rig.id, { generation: 1n });
    await rig.plane.until('what follows the drain', () => device.desired.length === 1);
    rig.plane.disconnect(rig.id);
    await rig.plane.until('the loss', () => !device.session.online);
    const stoppedAt = Date.now();
    await device.stop();
    expect(Date.now() - stoppedAt).toBeLessThan(2_000);
  });

  it('does not wait for an answer to Sync', async () => {
    await rig.start();
    const mute = await rig.mute();
    const device = rig.device({ url: mute.url, welcomeTimeoutMs: 200, syncAfter: 1 });
    await rig.plane.until('the end of the stream', () => device.states.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const stoppedAt = Date.now();
    await device.stop();
    expect(Date.now() - stoppedAt).toBeLessThan(2_000);
  });

  it.each([
    ['holds a stream', { refuseStreams: false }],
    ['polls by Sync', { refuseStreams: true }],
    ['waits to dial again', undefined],
  ])('leaves no timer and no socket while it %s: the process ends by itself', async (_state, options) => {
    await rig.start(options);
    if (!options) rig.wire.cut();
    const child = spawn(
      process.execPath,
      ['--no-warnings', '--input-type=module', '-e', DEVICE_THAT_STOPS, BUILT, rig.wire.url, rig.dir, options ? 'online' : 'offline'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    let errors = '';
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    const exit = within(10_000, 'the process to end', once(child, 'exit')).finally(() => child.kill('SIGKILL'));
    expect([...(await exit), errors]).toEqual([0, null, '']);
  });
});

const BUILT = new URL('../dist/index.js', import.meta.url).href;

/** Runs a session until it is online, or until its second attempt failed; stops it; and has nothing else to do. */
const DEVICE_THAT_STOPS = `
  const [built, url, directory, until] = process.argv.slice(1);
  const { DeviceSession, channelOptions, deviceCredentials, loadIdentity, targetOf } = await import(built);
  const { DeviceServiceClient } = await import('@matfleet/protocol');
  const dial = () => new DeviceServiceClient(targetOf(url), deviceCredentials(loadIdentity(directory)), channelOptions);
  const stopping = new AbortController();
  let failures = 0;
  const online = (online) => {
    if (until === 'online' ? online : ++failures === 2) setTimeout(() => stopping.abort(), 100);
  };
  const idle = { queueLength: 0, inFlight: 0, availableMemoryBytes: 0n, engineRssBytes: 0n, engineReady: true, latency: [], memoryBandwidthBytesPerSecond: 0n };
  const hello = { bootId: 'boot', agentVersion: '', capabilities: undefined, storedGeneration: 0n, observed: undefined };
  const handlers = { hello: () => hello, heartbeat: () => idle, restoreLatency() {}, desired() {}, online };
  // 0.999 after two failures: nearly 2 s of waiting that the stop has to end.
  await new DeviceSession({ dial, handlers, random: () => (failures < 2 ? 0 : 0.999), syncAfter: until === 'online' ? 1 : 100 }).run(stopping.signal);`;
