import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { DeviceServiceClient, Hello, InferenceEvent, LatencyReport, Phase, Report, StartInference, type Desired } from '@matfleet/protocol';
import { FakeControlPlane, type FakeControlPlaneOptions } from '@matfleet/protocol/testing';
import { channelOptions, deviceCredentials, targetOf } from './channel.js';
import { enrol, type Identity } from './enrol.js';
import { DeviceSession, type SessionOptions } from './session.js';

let dir: string;
let plane: FakeControlPlane;
let wire: Wire;
let identity: Identity;
let id: string;
const devices: TestDevice[] = [];
const wires: Wire[] = [];

/** The least that a device is: it stores documents, measures latency and says whether it is online. */
class TestDevice {
  readonly desired: Desired[] = [];
  readonly inferences: string[] = [];
  readonly states: { readonly online: boolean; readonly why: string }[] = [];
  latency: LatencyReport[] = [];
  storedGeneration = 0n;
  readonly session: DeviceSession;
  private readonly client: DeviceServiceClient;
  private readonly stopping = new AbortController();
  private readonly running: Promise<void>;

  constructor(options: Partial<SessionOptions> & { readonly url?: string } = {}) {
    this.client = new DeviceServiceClient(targetOf(options.url ?? wire.url), deviceCredentials(identity), channelOptions);
    this.session = new DeviceSession({
      client: this.client,
      handlers: {
        hello: () => Hello.fromPartial({ bootId: 'boot', storedGeneration: this.storedGeneration }),
        heartbeat: () => ({
          queueLength: 0,
          inFlight: 0,
          availableMemoryBytes: 0n,
          engineRssBytes: 0n,
          engineReady: true,
          memoryBandwidthBytesPerSecond: 0n,
          latency: this.latency.splice(0),
        }),
        restoreLatency: (reports) => void this.latency.push(...reports),
        desired: (desired) => {
          this.desired.push(desired);
          this.storedGeneration = desired.generation;
        },
        startInference: ({ attemptId }) => void this.inferences.push(`start ${attemptId}`),
        cancelInference: (attemptId) => void this.inferences.push(`cancel ${attemptId}`),
        online: (online, why) => void this.states.push({ online, why }),
      },
      random: () => 0,
      ...options,
    });
    this.running = this.session.run(this.stopping.signal);
    devices.push(this);
  }

  get generations(): bigint[] {
    return this.desired.map(({ generation }) => generation);
  }

  get lastWhy(): string {
    return this.states.at(-1)?.why ?? '';
  }

  report(generation: number, phase: Phase): void {
    this.session.report(Report.fromPartial({ generation: BigInt(generation), phase }));
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await within(5_000, 'the session to stop', this.running);
    this.client.close();
  }
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'session-'));
});

afterEach(async () => {
  for (const device of devices.splice(0)) await device.stop();
  wires.splice(0).forEach((laid) => laid.cut());
  plane.stop();
  await rm(dir, { recursive: true, force: true });
});

async function start(options: FakeControlPlaneOptions = {}): Promise<void> {
  // A lease that a busy machine cannot miss, and the caller's own object, so that a test can change its mind about the network.
  plane = await FakeControlPlane.start(Object.assign(options, { leaseMs: options.leaseMs ?? 10_000 }));
  wire = await Wire.lay(plane.port);
  identity = await enrol({ joinUrl: wire.url, token: plane.joinToken, deviceName: 'porch', directory: dir });
  id = identity.deviceId;
}

/** The control plane's process is gone, with every connection. */
function die(): void {
  wire.cut();
  plane.stop();
}

async function revive(): Promise<void> {
  await plane.restart();
  await wire.mend();
}

const hellos = (count: number, timeoutMs = 10_000) =>
  plane.until(`${count} Hellos`, () => plane.messages(id, 'hello').length >= count && plane.messages(id, 'hello'), timeoutMs);
const reported = (): string[] => plane.messages(id, 'report').map(({ generation, phase }) => `${generation} ${Phase[phase]}`);

describe('a session', () => {
  it('beats at one pace when a second Welcome comes', async () => {
    await start({ heartbeatMs: 200 });
    new TestDevice();
    await plane.until('a heartbeat', () => plane.messages(id, 'heartbeat').length > 0);
    for (let i = 0; i < 5; i++)
      plane.send(id, {
        message: {
          $case: 'welcome',
          value: { epoch: 1n, deviceId: id, heartbeatMs: 200, leaseMs: 10_000, reconnectJitterMs: 0, serverTimeUnixMs: 0n },
        },
      });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = plane.messages(id, 'heartbeat').length;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    // Five in a second at 200 ms; six timers would send thirty.
    expect(plane.messages(id, 'heartbeat').length - before).toBeLessThan(10);
  });

  it('says Hello before anything else, then receives the desired document and beats at the pace of the Welcome', async () => {
    await start({ heartbeatMs: 100 });
    plane.setDesired(id, { generation: 3n, modelVersionId: 'v1', sliceId: 'small', contextTokens: 512 });
    const device = new TestDevice();
    device.report(2, Phase.PHASE_ACTIVE);
    await plane.until('three heartbeats', () => plane.messages(id, 'heartbeat').length >= 3);
    expect(plane.received[0]!.request.message!.$case).toBe('hello');
    expect(plane.messages(id, 'hello')).toHaveLength(1);
    expect(device.desired).toMatchObject([{ generation: 3n, modelVersionId: 'v1', sliceId: 'small', contextTokens: 512 }]);
    expect(plane.messages(id, 'heartbeat').map(({ sequence }) => sequence)).toEqual(expect.arrayContaining([1n, 2n, 3n]));
    expect(device.states).toEqual([{ online: true, why: 'welcome' }]);
    expect(device.session.online).toBe(true);
  });

  it('hands over documents and inferences as they come', async () => {
    await start();
    const device = new TestDevice();
    await plane.until('the session', () => device.session.online && plane.connected(id));
    plane.setDesired(id, { generation: 1n });
    plane.startInference(id, StartInference.fromPartial({ attemptId: 'a' }));
    plane.send(id, { message: { $case: 'cancelInference', value: { attemptId: 'a' } } });
    await plane.until('the cancellation', () => device.inferences.length === 2);
    expect(device.inferences).toEqual(['start a', 'cancel a']);
    expect(device.generations).toEqual([1n]);
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a', sequence: 1n }))).toBe(true);
    await plane.until('the event', () => plane.messages(id, 'inferenceEvent').length === 1);
  });
});

describe('a session that was cut', () => {
  it('resumes by generation: of what was decided meanwhile only the newest document comes', async () => {
    await start();
    plane.setDesired(id, { generation: 3n });
    const device = new TestDevice();
    await plane.until('the document', () => device.desired.length === 1);
    plane.disconnect(id);
    plane.setDesired(id, { generation: 4n });
    plane.setDesired(id, { generation: 5n });
    await plane.until('the newest document', () => device.desired.length === 2);
    expect(plane.messages(id, 'hello').map(({ storedGeneration }) => storedGeneration)).toEqual([0n, 3n]);
    expect(device.generations).toEqual([3n, 5n]);
  });

  it('comes back by itself within seconds once the control plane is there again, and tells why it was away', async () => {
    await start();
    const device = new TestDevice();
    await plane.until('the session', () => device.session.online);
    die();
    await plane.until('the loss', () => !device.session.online);
    expect(device.states.at(-1)).toMatchObject({ online: false, why: expect.stringMatching(/.+/) as unknown });
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a' }))).toBe(false);
    await revive();
    await hellos(2, 8_000);
    await plane.until('the session', () => device.session.online);
  });

  it('sends what was reported meanwhile, and again what was not acknowledged: the newest of each generation', async () => {
    await start({ heartbeatMs: 100 });
    const device = new TestDevice();
    device.report(1, Phase.PHASE_FETCHING);
    device.report(1, Phase.PHASE_ACTIVE);
    await plane.until('the report', () => reported().length > 0);
    // The stream keeps its order: the acknowledgement is here once this document is.
    plane.setDesired(id, { generation: 1n });
    await plane.until('the document', () => device.desired.length === 1);
    plane.acknowledge = false;
    device.report(2, Phase.PHASE_FETCHING);
    device.report(2, Phase.PHASE_ACTIVE);
    await plane.until('the reports', () => reported().length >= 3);
    plane.acknowledge = true;
    plane.disconnect(id);
    await hellos(2);
    const beats = plane.messages(id, 'heartbeat').length;
    await plane.until('heartbeats, which come after the reports', () => plane.messages(id, 'heartbeat').length >= beats + 3);
    expect(reported()).toEqual(['1 PHASE_ACTIVE', '2 PHASE_FETCHING', '2 PHASE_ACTIVE', '2 PHASE_ACTIVE']);
  });

  it('brings measured latency again when its heartbeat was not acknowledged, and not when it was', async () => {
    await start({ heartbeatMs: 100 });
    const device = new TestDevice();
    const measured = () => plane.messages(id, 'heartbeat').flatMap(({ latency }) => latency.map(({ sliceId }) => sliceId));
    device.latency.push(LatencyReport.fromPartial({ sliceId: 'acknowledged' }));
    await plane.until('the latency', () => measured().length === 1);
    plane.setDesired(id, { generation: 1n });
    await plane.until('its acknowledgement', () => device.desired.length === 1);
    plane.acknowledge = false;
    device.latency.push(LatencyReport.fromPartial({ sliceId: 'lost' }));
    await plane.until('the latency', () => measured().length === 2);
    plane.acknowledge = true;
    plane.disconnect(id);
    await plane.until('the latency again', () => measured().length === 3);
    expect(measured()).toEqual(['acknowledged', 'lost', 'lost']);
  });

  it('waits a random part of the window that the Welcome named, so that a fleet does not come back at once', async () => {
    await start({ reconnectJitterMs: 1_000 });
    new TestDevice({ random: () => 0.5 });
    await hellos(1);
    await plane.until('the session', () => plane.connected(id));
    const cutAt = Date.now();
    plane.disconnect(id);
    await hellos(2);
    // Half of the second window of 2 s, and half of the jitter.
    expect(Date.now() - cutAt).toBeGreaterThanOrEqual(1_450);
  });
});

describe('a control plane that goes silent', () => {
  it('is given up after the lease, and dialled again', async () => {
    await start({ leaseMs: 1_000 });
    plane.acknowledge = false;
    const device = new TestDevice();
    await hellos(2);
    expect(device.states.slice(0, 2)).toEqual([
      { online: true, why: 'welcome' },
      { online: false, why: 'nothing came from the control plane for 1000 ms' },
    ]);
  });

  it('is given up when no Welcome comes', async () => {
    await start();
    const mute = await Wire.lay();
    const device = new TestDevice({ url: mute.url, welcomeTimeoutMs: 200, syncAfter: 100 });
    await plane.until('the end of the attempt', () => device.states.length > 0);
    expect(device.states[0]).toEqual({ online: false, why: 'nothing came from the control plane for 200 ms' });
  });
});

describe('Drain', () => {
  it('makes the device come back within its window, not after a failure of growing length, and is passed on as the reason', async () => {
    await start();
    const device = new TestDevice({ random: () => 0.9 });
    for (let round = 1; round <= 2; round++) {
      await hellos(round);
      await plane.until('the session', () => device.session.online && plane.connected(id));
      plane.send(id, { message: { $case: 'drain', value: { withinMs: 600, reason: 'an upgrade' } } });
      plane.setDesired(id, { generation: BigInt(round) });
      await plane.until('what follows the drain', () => device.desired.length === round);
      // It still serves until the control plane closes the session.
      expect(device.session.online).toBe(true);
      plane.disconnect(id);
      const cutAt = Date.now();
      await plane.until('the loss', () => !device.session.online);
      expect(device.lastWhy).toBe('the control plane asks to come back later: an upgrade');
      await hellos(round + 1);
      const awayMs = Date.now() - cutAt;
      expect(awayMs).toBeGreaterThanOrEqual(500);
      // The second failure in a row would wait 3.6 s.
      expect(awayMs).toBeLessThan(3_000);
    }
  });
});

describe('a network that breaks streams', () => {
  it('is crossed by Sync after three streams without a Welcome: documents, heartbeats, reports and inferences get through', async () => {
    await start({ refuseStreams: true, heartbeatMs: 100 });
    plane.setDesired(id, { generation: 2n });
    const device = new TestDevice();
    await plane.until('the document', () => device.desired.length === 1);
    expect(device.session.online).toBe(true);
    expect(device.states.filter(({ online }) => !online)).toHaveLength(3);
    device.report(2, Phase.PHASE_ACTIVE);
    expect(device.session.inferenceEvent(InferenceEvent.fromPartial({ attemptId: 'a', sequence: 1n }))).toBe(true);
    await plane.until('the event', () => plane.messages(id, 'inferenceEvent').length === 1);
    const beats = plane.messages(id, 'heartbeat').length;
    await plane.until('heartbeats', () => plane.messages(id, 'heartbeat').length >= beats + 2);
    expect(plane.messages(id, 'hello')).toHaveLength(1);
    expect(reported()).toEqual(['2 PHASE_ACTIVE']);
  });

  it('keeps the device reachable: between two spells of Sync one stream is tried, without waiting', async () => {
    await start({ refuseStreams: true, heartbeatMs: 100 });
    const device = new TestDevice({ syncAfter: 2, syncForMs: 300 });
    await hellos(1);
    const since = Date.now();
    // Each spell begins with a Hello.
    await hellos(4, 6_000);
    expect(Date.now() - since).toBeLessThan(4_000);
    const spell = ['streams do not get through', 'welcome', 'trying a stream again'];
    expect(device.states.map(({ why }) => why).slice(0, 10)).toEqual(['streams do not get through', ...spell, ...spell, ...spell]);
  });

  it('is tried with a stream again when Sync fails too', async () => {
    const network = { refuseStreams: true, heartbeatMs: 100 };
    await start(network);
    const device = new TestDevice({ syncAfter: 1 });
    await plane.until('Sync', () => device.session.online);
    die();
    await plane.until('the loss', () => !device.session.online);
    network.refuseStreams = false;
    await revive();
    await plane.until('a stream', () => plane.connected(id) && device.session.online);
  });
});

describe('stopping', () => {
  it('ends the session on both sides, and says so', async () => {
    await start();
    const device = new TestDevice();
    await plane.until('the session', () => device.session.online && plane.connected(id));
    await device.stop();
    expect(device.states.at(-1)).toEqual({ online: false, why: 'the agent stops' });
    await plane.until('the end of the stream', () => !plane.connected(id));
    const beats = plane.messages(id, 'heartbeat').length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(plane.messages(id, 'heartbeat')).toHaveLength(beats);
    expect(plane.messages(id, 'hello')).toHaveLength(1);
  });

  it('does not wait for the next attempt', async () => {
    await start();
    const device = new TestDevice({ random: () => 0.5 });
    await plane.until('the session', () => device.session.online && plane.connected(id));
    plane.send(id, { message: { $case: 'drain', value: { withinMs: 60_000, reason: 'a long upgrade' } } });
    plane.setDesired(id, { generation: 1n });
    await plane.until('what follows the drain', () => device.desired.length === 1);
    plane.disconnect(id);
    await plane.until('the loss', () => !device.session.online);
    const stoppedAt = Date.now();
    await device.stop();
    expect(Date.now() - stoppedAt).toBeLessThan(2_000);
  });

  it('does not wait for an answer to Sync', async () => {
    await start();
    const mute = await Wire.lay();
    const device = new TestDevice({ url: mute.url, welcomeTimeoutMs: 200, syncAfter: 1 });
    await plane.until('the end of the stream', () => device.states.length > 0);
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
    await start(options);
    if (!options) wire.cut();
    const child = spawn(
      process.execPath,
      ['--no-warnings', '--input-type=module', '-e', DEVICE_THAT_STOPS, BUILT, wire.url, dir, options ? 'online' : 'offline'],
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
  const client = new DeviceServiceClient(targetOf(url), deviceCredentials(loadIdentity(directory)), channelOptions);
  const stopping = new AbortController();
  let failures = 0;
  const online = (online) => {
    if (until === 'online' ? online : ++failures === 2) setTimeout(() => stopping.abort(), 100);
  };
  const idle = { queueLength: 0, inFlight: 0, availableMemoryBytes: 0n, engineRssBytes: 0n, engineReady: true, latency: [], memoryBandwidthBytesPerSecond: 0n };
  const hello = { bootId: 'boot', agentVersion: '', capabilities: undefined, storedGeneration: 0n, observed: undefined };
  const handlers = { hello: () => hello, heartbeat: () => idle, restoreLatency() {}, desired() {}, online };
  // 0.999 after two failures: nearly 2 s of waiting that the stop has to end.
  await new DeviceSession({ client, handlers, random: () => (failures < 2 ? 0 : 0.999), syncAfter: until === 'online' ? 1 : 100 }).run(stopping.signal);
  client.close();`;

/** What lies between device and control plane; without a `port` behind it, it takes connections and never says a word. */
class Wire {
  url = '';
  private server: Server | undefined;
  private readonly sockets = new Set<Socket>();

  static async lay(port?: number): Promise<Wire> {
    const laid = new Wire(port);
    await laid.mend(0);
    return laid;
  }

  private constructor(private readonly port: number | undefined) {
    wires.push(this);
  }

  /** Every connection breaks, and no new one is accepted. */
  cut(): void {
    this.server?.close();
    this.sockets.forEach((socket) => socket.destroy());
    this.sockets.clear();
  }

  async mend(at = Number(new URL(this.url).port)): Promise<void> {
    this.server = createServer((near) => {
      this.keep(near);
      if (this.port === undefined) return;
      const far = this.keep(connect(this.port, '127.0.0.1'));
      near.pipe(far).pipe(near);
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
    }).listen(at, '127.0.0.1');
    await once(this.server, 'listening', { signal: AbortSignal.timeout(5_000) });
    this.url = `https://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  private keep(socket: Socket): Socket {
    this.sockets.add(socket.on('error', () => {}).on('close', () => this.sockets.delete(socket)));
    return socket;
  }
}

async function within<T>(timeoutMs: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeoutMs} ms in vain for ${what}`)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
