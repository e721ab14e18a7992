import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Subject } from 'rxjs';
import { CONFIG, type Config } from '../config.js';
import { presence, presenceElsewhere, sweepLeases, type Presence } from '../domain/presence.js';
import { reconnectJitterMs } from '../domain/reconnect.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Leadership } from '../replicas/leadership.js';
import { NudgeService } from '../replicas/nudges.js';
import { ReplicaRepository } from '../replicas/replica.repository.js';
import { Replicas } from '../replicas/replicas.service.js';
import type { Condition, DeviceRecord, DeviceView, Hello, Observed, PhaseReport } from './device.js';
import { parseFilter } from './device-filter.js';
import { DeviceFilterRepository, type Present } from './device-filter.repository.js';
import { LABELS_MAX, type LabelPatch } from './device-labels.js';
import { DeviceLinks } from './device-links.js';
import { DeviceRepository } from './device.repository.js';
import { sampleForRouting } from './routing-sample.js';
import { LatencyWindows, summarise, type LatencyReport, type LatencyWindow } from './latency-windows.js';

export interface Beat {
  readonly queued: number;
  readonly engineReady: boolean;
  readonly availableMemoryBytes: number;
  /** 0 when not measured again. */
  readonly memoryBandwidthBytesPerSecond: number;
  /** Null: as the last one that told. */
  readonly condition: Condition | null;
  readonly latency: readonly LatencyReport[];
}

export interface DeviceQuery {
  readonly filter?: string | undefined;
  /** At most, and without it, DEVICE_PAGE_MAX. */
  readonly limit?: number | undefined;
  /** The name of the last device of the page before. */
  readonly after?: string | undefined;
}

/** What only a live session knows. */
export interface LiveState {
  readonly epoch: bigint;
  readonly queued: number;
  readonly engineReady: boolean;
  readonly condition: Condition | null;
}

/** A device whose session another replica, at `address`, holds. */
interface Elsewhere {
  readonly address: string;
  readonly epoch: bigint;
  readonly runs: string | undefined;
}

/** A device with a lease, or whose lease ran out in this process's life. One small object each: there are many. */
interface Live extends LiveState {
  readonly deviceId: string;
  epoch: bigint;
  queued: number;
  engineReady: boolean;
  condition: Condition | null;
  /** Model version and slice that it runs, one string for all that run the same. */
  runs: string | undefined;
  lastBeatMs: number;
  connected: boolean;
  /** The presence that was told last. */
  shown: Presence;
  /** Has beaten since the last flush. */
  seen: boolean;
}

const FLUSH_MS = 60_000;
const STRAY_MS = 10_000;
const ELSEWHERE_MS = 500;
export const DEVICE_PAGE_MAX = 1_000;
const ROUTED_MAX = 64;
const KEYS_MAX = 10_000;
const LATENCY_SHOWN_MS = 15 * 60_000;
const LATENCY_KEPT_MS = 7 * 24 * 3_600_000;

/** The registry of devices: who they are, whether they are here, what they run and how fast. */
@Injectable()
export class FleetService implements OnModuleInit, OnModuleDestroy {
  /** Latency windows as they close, for whoever learns from them. */
  readonly closedWindows = new Subject<LatencyWindow>();
  private readonly log = new Logger('fleet');
  private readonly live = new Map<string, Live>();
  private readonly keys = new Map<string, string>();
  private readonly windows: LatencyWindows;
  private timers: NodeJS.Timeout[] = [];
  private lastSweepMs = performance.now();
  private braked = false;
  private stopping = false;
  private elsewhereAtMs = -Infinity;
  private elsewhereRead: Promise<ReadonlyMap<string, Elsewhere>> = Promise.resolve(new Map());

  constructor(
    private readonly devices: DeviceRepository,
    private readonly filters: DeviceFilterRepository,
    private readonly links: DeviceLinks,
    private readonly events: FleetEvents,
    private readonly replicas: Replicas,
    private readonly holders: ReplicaRepository,
    private readonly leadership: Leadership,
    private readonly nudges: NudgeService,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.windows = new LatencyWindows(3 * config.heartbeatMs);
  }

  async onModuleInit(): Promise<void> {
    await this.recall();
    const guard = (work: () => Promise<void>) => (): void => void work().catch((error: unknown) => this.log.error(error));
    this.timers = [
      setInterval(
        guard(() => this.sweep()),
        this.config.heartbeatMs,
      ),
      setInterval(
        guard(() => this.flush()),
        FLUSH_MS,
      ),
      setInterval(
        guard(() => this.endStray(this.links.all().map((link) => link.deviceId))),
        STRAY_MS,
      ),
    ];
    for (const timer of this.timers) timer.unref();
    this.leadership.every(
      3_600_000,
      (fence) => this.devices.dropWindowsBefore(new Date(Date.now() - LATENCY_KEPT_MS), fence),
      (error) => this.log.error(error),
    );
    this.nudges.on('session', (deviceId) => guard(() => this.endStray([deviceId]))());
  }

  async onModuleDestroy(): Promise<void> {
    this.stopping = true;
    for (const timer of this.timers) clearInterval(timer);
    await this.flush();
    await this.devices.addWindows(this.windows.closeAll());
  }

  /** Opens a session: raises the epoch, which ends whatever session the device had before. */
  async hello(deviceId: string, hello: Hello): Promise<DeviceRecord> {
    const device = await this.devices.hello(deviceId, hello, this.replicas.id);
    if (!device) throw new DomainError('permission-denied', `device ${deviceId} is not part of this fleet any more`);
    this.nudges.tell({ kind: 'session', deviceId });
    const { epoch } = device;
    const engineReady = hello.observed !== null;
    const runs = this.keyOf(device.observed);
    const fresh = { epoch, queued: 0, engineReady, runs, lastBeatMs: performance.now(), connected: true, seen: false, condition: null };
    const live = this.live.get(deviceId);
    // Of two at once the higher epoch holds the lease, whichever answer came first.
    if (!live) this.live.set(deviceId, { deviceId, shown: 'offline', ...fresh });
    else if (live.epoch < epoch) Object.assign(live, fresh);
    this.changed(deviceId);
    return device;
  }

  /** No database write: the lease is memory, the time is flushed for all devices together. */
  beat(deviceId: string, epoch: bigint, beat: Beat): void {
    const live = this.live.get(deviceId);
    if (live?.epoch !== epoch) return;
    const engineChanged = live.engineReady !== beat.engineReady;
    live.lastBeatMs = performance.now();
    live.connected = true;
    live.seen = true;
    live.queued = beat.queued;
    live.engineReady = beat.engineReady;
    live.condition = beat.condition ?? live.condition;
    for (const report of beat.latency) {
      const closed = this.windows.add(deviceId, report, Date.now());
      if (closed) this.close([closed]);
    }
    if (beat.condition || beat.latency.length > 0 || engineChanged || live.shown !== 'online') this.changed(deviceId);
  }

  async report(deviceId: string, epoch: bigint, report: PhaseReport): Promise<void> {
    if (!(await this.devices.report(deviceId, epoch, report))) return;
    const live = this.live.get(deviceId);
    if (live?.epoch === epoch && report.observed) live.runs = this.keyOf(report.observed);
    this.changed(deviceId);
  }

  /** The session's stream has ended. The lease runs on. */
  disconnected(deviceId: string, epoch: bigint): void {
    const live = this.live.get(deviceId);
    if (live?.epoch !== epoch) return;
    live.connected = false;
    if (!this.stopping) this.replicas.released(deviceId, epoch, new Date(Date.now() - (performance.now() - live.lastBeatMs)));
    this.changed(deviceId);
  }

  /** Sessions that the database knows at another replica, or not at all, end here. */
  private async endStray(deviceIds: readonly string[]): Promise<void> {
    const epochs = new Map(deviceIds.flatMap((id) => [[id, this.links.get(id)?.epoch] as const]).filter(([, epoch]) => epoch !== undefined));
    if (epochs.size === 0) return;
    const held = await this.holders.held(this.replicas.id, [...epochs.keys()]);
    for (const [deviceId, epoch] of epochs) {
      const link = this.links.get(deviceId);
      // One that was opened meanwhile is younger than the answer.
      if (held.has(deviceId) || link?.epoch !== epoch) continue;
      link?.close('the device has a session with another replica, or was removed');
      this.live.delete(deviceId);
      this.events.receive({ kind: 'device-changed', deviceId });
    }
  }

  /** Devices whose sessions live in other replicas, by id. Read at most twice a second. */
  elsewhere(): Promise<ReadonlyMap<string, Elsewhere>> {
    const addresses = new Map(this.replicas.peers().map((peer) => [peer.id, peer.address]));
    if (addresses.size === 0) return Promise.resolve(new Map());
    const nowMs = performance.now();
    if (nowMs - this.elsewhereAtMs > ELSEWHERE_MS) {
      this.elsewhereAtMs = nowMs;
      this.elsewhereRead = this.holders
        .heldBy([...addresses.keys()])
        .then(
          (held) =>
            new Map(
              held.map(({ deviceId, replicaId, epoch, observed }) => [
                deviceId,
                { address: addresses.get(replicaId)!, epoch, runs: this.keyOf(observed as Observed | null) },
              ]),
            ),
        );
      this.elsewhereRead.catch(() => (this.elsewhereAtMs = -Infinity));
    }
    return this.elsewhereRead;
  }

  /** What this process knows of a device that is here, else what the database says. */
  private presenceIn(device: DeviceRecord): Presence {
    const { replicaId, lastSeenAt } = device;
    if (this.live.has(device.id) && (replicaId === this.replicas.id || replicaId === null)) return this.presenceOf(device.id);
    return presenceElsewhere(this.holderSilentMs(replicaId), lastSeenAt && Date.now() - lastSeenAt.getTime(), this.config);
  }

  private holderSilentMs(replicaId: string | null): number | null {
    const holder = replicaId === null ? undefined : this.replicas.other(replicaId);
    if (!holder) return null;
    return this.replicas.isAlive(holder.id) ? 0 : Math.max(1, holder.silentMs);
  }

  presenceOf(deviceId: string): Presence {
    return presence(this.live.get(deviceId), performance.now(), this.config);
  }

  liveState(deviceId: string): LiveState | undefined {
    return this.live.get(deviceId);
  }

  /** Devices that this process has seen. */
  get size(): number {
    return this.live.size;
  }

  /** Of every device that is not refused, whether it is here or not. */
  ids(): Promise<string[]> {
    return this.devices.ids();
  }

  async record(deviceId: string): Promise<DeviceRecord> {
    const device = await this.devices.find(deviceId);
    if (!device) throw new DomainError('not-found', `there is no device ${deviceId}`);
    return device;
  }

  /** By name: a page of all devices, or of those of a filter. Throws `invalid-argument` for what is no filter. */
  async list({ filter, limit = DEVICE_PAGE_MAX, after = '' }: DeviceQuery = {}): Promise<DeviceView[]> {
    const page = { after, limit: Math.max(1, Math.min(limit, DEVICE_PAGE_MAX)) };
    if (filter === undefined) return this.views(await this.devices.page(page));
    return this.views(await this.devices.list(await this.filters.matching(parseFilter(filter).condition, this.present(), page)));
  }

  /** Devices to route to: all of a small fleet, a sample of a large one. */
  async routable(): Promise<DeviceView[]> {
    if ((await this.devices.count()) <= ROUTED_MAX) return this.views(await this.devices.list());
    const nowMs = performance.now();
    const online = [...this.live.values()].filter((live) => live.engineReady && presence(live, nowMs, this.config) === 'online');
    const elsewhere = [...(await this.elsewhere())].map(([deviceId, { runs }]) => ({ deviceId, runs, queued: 0 }));
    const sample = sampleForRouting([...online, ...elsewhere], ROUTED_MAX, Math.random);
    return this.views(await this.devices.list(sample.map(({ deviceId }) => deviceId)));
  }

  /** Ids of the devices that a filter means, by name. */
  async idsOf(filter: string): Promise<string[]> {
    const { condition } = parseFilter(filter);
    const shown = new Map([...this.live.keys()].map((id) => [id, this.presenceOf(id)]));
    for (const { deviceId, replicaId } of await this.holders.heldBy(this.replicas.others()))
      shown.set(deviceId, presenceElsewhere(this.holderSilentMs(replicaId), null, this.config));
    const present: Record<Presence, string[]> = { online: [], suspect: [], offline: [] };
    for (const [id, presence] of shown) present[presence].push(id);
    return this.filters.matching(condition, present);
  }

  /** Of the devices whose sessions live here: the sum over replicas is the fleet. */
  present(): Present {
    const present: Record<'online' | 'suspect', string[]> = { online: [], suspect: [] };
    const nowMs = performance.now();
    for (const live of this.live.values()) {
      const shown = presence(live, nowMs, this.config);
      if (shown !== 'offline') present[shown].push(live.deviceId);
    }
    return present;
  }

  /** All devices, here or not. */
  count(): Promise<number> {
    return this.devices.count();
  }

  /** Whether no lease expires because the fault is more likely ours. */
  get isBraked(): boolean {
    return this.braked;
  }

  async patchLabels(deviceId: string, patch: LabelPatch): Promise<DeviceView> {
    const labels = await this.devices.patchLabels(deviceId, patch, LABELS_MAX);
    if (labels === null) throw new DomainError('not-found', `there is no device ${deviceId}`);
    if (labels === 'too-many') throw new DomainError('invalid-argument', `the device would have more than ${LABELS_MAX} labels`);
    this.changed(deviceId);
    return this.get(deviceId);
  }

  async get(deviceId: string): Promise<DeviceView> {
    return (await this.views([await this.record(deviceId)]))[0]!;
  }

  /** The device is no longer in the fleet: nothing of it stays in memory. */
  forget(deviceId: string): void {
    this.live.delete(deviceId);
    this.nudges.tell({ kind: 'session', deviceId });
    this.changed(deviceId);
  }

  /** Devices whose newest desired document is not what they run, in parts of at most 1000. */
  behind(): AsyncGenerator<string[]> {
    return pages(
      (after) => this.devices.behind(after),
      (id) => id,
    );
  }

  /** Devices whose latency correction lies further than `tolerance` (natural logarithm) from 1, in parts of at most 1000. */
  corrected(tolerance: number): AsyncGenerator<{ id: string; latencyCorrection: number }[]> {
    return pages(
      (after) => this.devices.corrected(tolerance, after),
      ({ id }) => id,
    );
  }

  /** Devices that have spoken and have nothing to run yet. */
  unassigned(): Promise<string[]> {
    return this.devices.unassigned();
  }

  setLatencyCorrection(deviceId: string, correction: number): Promise<void> {
    return this.devices.setLatencyCorrection(deviceId, correction);
  }

  async setProblem(deviceId: string, message: string): Promise<void> {
    await this.devices.setProblem(deviceId, message);
    this.changed(deviceId);
  }

  changed(deviceId: string): void {
    const live = this.live.get(deviceId);
    if (live) live.shown = this.presenceOf(deviceId);
    this.events.emit({ kind: 'device-changed', deviceId });
  }

  private async views(records: readonly DeviceRecord[]): Promise<DeviceView[]> {
    const ids = records.map((device) => device.id);
    const [desired, windows] = await Promise.all([
      this.devices.desired(ids),
      this.devices.windowsSince(new Date(Date.now() - LATENCY_SHOWN_MS), ids),
    ]);
    return records.map((device) => {
      const open = this.windows.openWindow(device.id);
      const measured = [...(open ? [open] : []), ...(windows.get(device.id) ?? [])].filter(
        (w) => !device.observed || (w.sliceId === device.observed.sliceId && w.modelVersionId === device.observed.modelVersionId),
      );
      return {
        id: device.id,
        name: device.name,
        labels: device.labels,
        agentVersion: device.agentVersion,
        standing: device.standing,
        standingReason: device.standingReason,
        presence: this.presenceIn(device),
        lastSeenAt: this.lastSeenOf(device),
        capabilities: device.capabilities,
        condition: this.live.get(device.id)?.condition ?? null,
        desired: desired.get(device.id) ?? null,
        observed: device.observed,
        phase: device.phase,
        phaseError: device.phaseError,
        fetchedBytes: device.fetchedBytes,
        totalBytes: device.totalBytes,
        latency: summarise(measured),
        latencyCorrection: device.latencyCorrection,
      };
    });
  }

  /** The database knows it up to the last flush. */
  private lastSeenOf({ id, lastSeenAt }: DeviceRecord): Date | null {
    const live = this.live.get(id);
    return live?.seen ? new Date(Date.now() - (performance.now() - live.lastBeatMs)) : lastSeenAt;
  }

  /**
   * Devices that were here when the control plane last was: they have not gone because it did. They get a lease to come back in, from the moment on
   * by which they dial again.
   */
  private async recall(): Promise<void> {
    const devices = await this.devices.lastHere(FLUSH_MS + this.config.leaseMs);
    const lastBeatMs = performance.now() + reconnectJitterMs(devices.length);
    for (const { id, epoch } of devices)
      this.live.set(id, {
        ...{ deviceId: id, epoch, lastBeatMs, queued: 0, engineReady: false, runs: undefined, condition: null },
        ...{ connected: false, shown: 'suspect', seen: false },
      });
  }

  /** Presence changes by silence, so somebody must look. */
  private async sweep(): Promise<void> {
    const nowMs = performance.now();
    const leases = [...this.live.values()].filter((lease) => lease.shown !== 'offline');
    const sweep = sweepLeases(leases, nowMs, this.config, nowMs - this.lastSweepMs, this.config.heartbeatMs, this.braked);
    this.lastSweepMs = nowMs;
    this.braked = sweep.braked;
    if (sweep.braked) {
      this.log.warn(`no lease expires: ${sweep.reason}`);
      for (const lease of leases) lease.lastBeatMs = nowMs;
    }
    for (const deviceId of sweep.expired) this.links.get(deviceId)?.close('the lease ran out');
    for (const { deviceId, shown } of leases) if (this.presenceOf(deviceId) !== shown) this.changed(deviceId);
    this.close(this.windows.closeDue(Date.now()));
  }

  private keyOf(observed: Observed | null): string | undefined {
    if (!observed) return undefined;
    const key = `${observed.modelVersionId}/${observed.sliceId}`;
    const known = this.keys.get(key);
    if (known !== undefined) return known;
    if (this.keys.size >= KEYS_MAX) this.keys.clear();
    this.keys.set(key, key);
    return key;
  }

  private close(windows: LatencyWindow[]): void {
    if (windows.length === 0) return;
    void this.devices.addWindows(windows).catch((error: unknown) => this.log.error(error));
    for (const window of windows) this.closedWindows.next(window);
  }

  private async flush(): Promise<void> {
    const ids: string[] = [];
    for (const live of this.live.values()) {
      if (live.seen) ids.push(live.deviceId);
      live.seen = false;
    }
    await this.devices.flushSeen(ids, new Date());
  }
}

/** One page after another, each read when the one before is done with. */
async function* pages<T>(read: (after: string) => Promise<T[]>, idOf: (item: T) => string): AsyncGenerator<T[]> {
  for (let page = await read(''); page.length > 0; page = await read(idOf(page.at(-1)!))) yield page;
}
