import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Condition, DeviceServiceClient, Hello, Phase, Report, type Desired, type LatencyReport } from '@matfleet/protocol';
import { FakeControlPlane, type FakeControlPlaneOptions } from '@matfleet/protocol/testing';
import { channelOptions, deviceCredentials, targetOf } from '../channel.js';
import { enrol, type Identity } from '../enrol.js';
import { DeviceSession, type Refusal, type SessionOptions } from '../session.js';
import { Wire } from './wire.js';

/** Sessions of one enrolled device with a fake control plane, and a wire between them that can be cut. A test starts it, and ends it. */
export class SessionRig {
  plane!: FakeControlPlane;
  wire!: Wire;
  dir = '';
  identity!: Identity;
  private readonly devices: TestDevice[] = [];
  private readonly wires: Wire[] = [];

  async start(options: FakeControlPlaneOptions = {}): Promise<void> {
    this.dir = await mkdtemp(join(tmpdir(), 'session-'));
    // A lease that a busy machine cannot miss, and the caller's own object, so that a test can change its mind about the network.
    this.plane = await FakeControlPlane.start(Object.assign(options, { leaseMs: options.leaseMs ?? 10_000 }));
    this.wires.push((this.wire = await Wire.lay(this.plane.port)));
    this.identity = await enrol({ joinUrl: this.wire.url, token: this.plane.joinToken, deviceName: 'porch', directory: this.dir });
  }

  /** The id of the one device. */
  get id(): string {
    return this.identity.deviceId;
  }

  device(options: Partial<SessionOptions> & { readonly url?: string } = {}, whenRefused: 'later' | 'never' = 'later'): TestDevice {
    const device = new TestDevice(this.identity, options.url ?? this.wire.url, options, whenRefused);
    this.devices.push(device);
    return device;
  }

  /** A wire with nothing behind it: it takes connections and never says a word. */
  async mute(): Promise<Wire> {
    const wire = await Wire.lay();
    this.wires.push(wire);
    return wire;
  }

  /** The control plane's process is gone, with every connection. */
  die(): void {
    this.wire.cut();
    this.plane.stop();
  }

  async revive(): Promise<void> {
    await this.plane.restart();
    await this.wire.mend();
  }

  hellos(count: number, timeoutMs = 10_000): Promise<Hello[]> {
    const seen = (): Hello[] => this.plane.messages(this.id, 'hello');
    return this.plane.until(`${count} Hellos`, () => seen().length >= count && seen(), timeoutMs);
  }

  /** What was reported, as `<generation> <phase>`. */
  reported(): string[] {
    return this.plane.messages(this.id, 'report').map(({ generation, phase }) => `${generation} ${Phase[phase]}`);
  }

  async end(): Promise<void> {
    for (const device of this.devices.splice(0)) await device.stop();
    for (const wire of this.wires.splice(0)) wire.cut();
    this.plane.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** The least that a device is: it stores documents, measures latency and says whether it is online. */
export class TestDevice {
  readonly desired: Desired[] = [];
  readonly inferences: string[] = [];
  readonly states: { readonly online: boolean; readonly why: string }[] = [];
  readonly refusals: Refusal[] = [];
  latency: LatencyReport[] = [];
  storedGeneration = 0n;
  readonly session: DeviceSession;
  private readonly stopping = new AbortController();
  private readonly running: Promise<void>;

  constructor(identity: Identity, url: string, options: Partial<SessionOptions>, whenRefused: 'later' | 'never') {
    this.session = new DeviceSession({
      dial: () => new DeviceServiceClient(targetOf(url), deviceCredentials(identity), channelOptions),
      handlers: {
        hello: () => Hello.fromPartial({ bootId: 'boot', storedGeneration: this.storedGeneration }),
        heartbeat: (roundTripMs) => ({
          queueLength: 0,
          inFlight: 0,
          availableMemoryBytes: 0n,
          engineRssBytes: 0n,
          engineReady: true,
          memoryBandwidthBytesPerSecond: 0n,
          condition: roundTripMs === undefined ? undefined : Condition.fromPartial({ roundTripMs }),
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
        refused: (refusal) => {
          this.refusals.push(refusal);
          return Promise.resolve(whenRefused);
        },
      },
      random: () => 0,
      ...options,
    });
    this.running = this.session.run(this.stopping.signal);
  }

  /** Its session will not dial again. */
  get ended(): Promise<void> {
    return this.running;
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
  }
}

export async function within<T>(timeoutMs: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeoutMs} ms in vain for ${what}`)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
