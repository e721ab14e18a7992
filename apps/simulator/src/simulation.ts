import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { enrolmentClient, newDeviceKey, pinnedCa, requestIdentity, retryPlan, targetOf, type Identity } from '@matfleet/device';
import type { HistoryEvent } from '@matfleet/history';
import { seededRandom } from '@matfleet/model';
import { parseJoinToken, type DeviceServiceClient } from '@matfleet/protocol';
import { capabilitiesOf, drawClass } from './device/catalogue.js';
import { VirtualDevice } from './device/virtual-device.js';
import { Group } from './network/group.js';
import { drawGroup, proxiedGroups, REST, type Fault, type FaultScript } from './network/script.js';
import { Statistics, type Counts } from './statistics.js';

const CALL_TIMEOUT_MS = 15_000;
/** Enrolments that are under way at the same time. */
const ENROLMENTS = 64;

export interface SimulationOptions {
  readonly server: string;
  readonly joinToken: string;
  /** The number of the first device; those of one seed are the same whatever process they are in. */
  readonly first?: number;
  readonly devices: number;
  readonly seed: number;
  /** Times in a minute that each device tells its position again. */
  readonly reportsPerMinute?: number;
  /** Devices started in a second. */
  readonly ramp: number;
  readonly script: FaultScript;
  /** Grants to draw from instead of the classes' own, bytes. */
  readonly modelMemoryBytes: readonly number[];
  readonly record: (event: HistoryEvent) => void;
}

/** A fleet of virtual devices, in this process or in several. */
export interface SimulatedFleet {
  /** Resolves when every device has been started: enrolled, and dialling. */
  start(): Promise<void>;
  /** Plays the script; resolves when its last fault is over. */
  playScript(): Promise<void>;
  counts(): Counts;
  /** Acknowledgements are timed from now on. */
  resetAcks(): void;
  /** What every device runs now goes into the history; then all of them go. */
  stop(): Promise<void>;
}

/** A fleet of virtual devices in this process. The same seed gives the same boxes, groups and moments; the network and the clock remain real. */
export class Simulation implements SimulatedFleet {
  readonly statistics = new Statistics();
  private readonly devices: VirtualDevice[] = [];
  private readonly groups = new Map<string, Group>();
  private readonly stopping = new AbortController();
  private telling: NodeJS.Timeout | undefined;

  constructor(private readonly options: SimulationOptions) {
    // One for each fault and enrolment that waits: both are bounded.
    setMaxListeners(0, this.stopping.signal);
  }

  async start(): Promise<void> {
    const { server, joinToken, first = 0, devices, seed, ramp, script } = this.options;
    this.tellAgain();
    await this.openGroups();
    const caPem = await pinnedCa(server, parseJoinToken(joinToken).caSha256, CALL_TIMEOUT_MS);
    const client = enrolmentClient(server, caPem);
    const startedAtMs = performance.now();
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < devices && !this.stopping.signal.aborted) {
        const index = next++;
        await this.pause(startedAtMs + (1_000 * index) / ramp - performance.now());
        // A draw of its own for each device, so that one more device changes nothing for the others.
        const number = first + index;
        const random = seededRandom(seed * 1_000_003 + number);
        await this.startOne(client, { number, caPem, random, group: drawGroup(script, random()) });
      }
    };
    try {
      await Promise.all(Array.from({ length: Math.min(ENROLMENTS, devices) }, worker));
    } finally {
      client.close();
    }
  }

  async playScript(): Promise<void> {
    const startedAtMs = performance.now();
    await Promise.all(
      this.options.script.faults.map(async (fault) => {
        await this.pause(startedAtMs + fault.at * 1_000 - performance.now());
        const groups = fault.group === undefined ? [...this.groups.values()] : [this.groups.get(fault.group)!];
        if (this.stopping.signal.aborted) return;
        for (const group of groups) this.begin(group, fault);
        await this.pause(fault.for * 1_000);
        for (const group of groups) group.end(fault);
      }),
    );
  }

  pause(ms: number): Promise<void> {
    return ms <= 0 ? Promise.resolve() : delay(ms, undefined, { signal: this.stopping.signal }).catch(() => {});
  }

  async stop(): Promise<void> {
    clearInterval(this.telling);
    this.stopping.abort();
    for (const device of this.devices) device.recordEnd();
    await Promise.all(this.devices.map((device) => device.stop()));
    await Promise.all([...this.groups.values()].map((group) => group.close()));
  }

  counts(): Counts {
    return this.statistics.counts();
  }

  resetAcks(): void {
    this.statistics.resetAcks();
  }

  /** A few devices each second, one after the other. */
  private tellAgain(): void {
    const { reportsPerMinute = 0 } = this.options;
    if (reportsPerMinute === 0) return;
    let [due, next] = [0, 0];
    this.telling = setInterval(() => {
      due += (this.devices.length * reportsPerMinute) / 60;
      for (; due >= 1 && this.devices.length > 0; due -= 1) this.devices[next++ % this.devices.length]!.tell();
    }, 1_000);
  }

  private begin(group: Group, fault: Fault): void {
    if (fault.kind !== 'restart') return group.begin(fault);
    for (const device of group.devices) void device.restart();
  }

  private async openGroups(): Promise<void> {
    const { script, server, seed } = this.options;
    const proxied = proxiedGroups(script);
    const url = new URL(server);
    const upstream = { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 443) };
    for (const name of [...Object.keys(script.groups), REST]) {
      const group = new Group(name, targetOf(server));
      if (proxied.includes(name)) await group.dialThrough(upstream, seededRandom(seed));
      this.groups.set(name, group);
    }
  }

  private async startOne(
    client: DeviceServiceClient,
    { number, caPem, random, group: groupName }: { number: number; caPem: string; random: () => number; group: string },
  ): Promise<void> {
    const { modelMemoryBytes, record } = this.options;
    const { statistics } = this;
    const box = drawClass(random());
    const grant = modelMemoryBytes[Math.floor(random() * modelMemoryBytes.length)];
    const group = this.groups.get(groupName)!;
    const identity = await this.enrol(client, `sim-${box.name}-${number}`, caPem, random);
    if (!identity || this.stopping.signal.aborted) return;
    statistics.enrolled += 1;
    const device = new VirtualDevice({
      ...{ identity, box, random, statistics, record },
      capabilities: capabilitiesOf(box, grant),
      target: group.target,
      weather: () => group.weather,
    });
    this.devices.push(device);
    group.devices.push(device);
    device.start();
    statistics.started += 1;
  }

  /** Tries again as a device does; undefined when the simulation stops first. */
  private async enrol(client: DeviceServiceClient, deviceName: string, caPem: string, random: () => number): Promise<Identity | undefined> {
    const keyPem = await newDeviceKey();
    for (let failures = 0; !this.stopping.signal.aborted; failures += 1) {
      if (failures > 0) await this.pause(retryPlan(Math.min(failures, 3), random()).beforeMs);
      try {
        return await requestIdentity(client, { token: this.options.joinToken, deviceName, keyPem, caPem, timeoutMs: CALL_TIMEOUT_MS });
      } catch (error) {
        this.statistics.lost(`enrolment: ${(error as Error).message}`);
      }
    }
    return undefined;
  }
}
