import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Subject } from 'rxjs';
import { CONFIG, type Config } from '../config.js';
import { presence, sweepLeases, type Lease, type Presence } from '../domain/presence.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import type { Capabilities, DeviceRecord, DeviceView, Observed, PhaseReport } from './device.js';
import { parseFilter } from './device-filter.js';
import { DeviceFilterRepository, type Present } from './device-filter.repository.js';
import { LABELS_MAX, type LabelPatch } from './device-labels.js';
import { DeviceLinks } from './device-links.js';
import { DeviceRepository } from './device.repository.js';
import { LatencyWindows, summarise, type LatencyReport, type LatencyWindow } from './latency-windows.js';

export interface Beat {
  readonly queued: number;
  readonly engineReady: boolean;
  readonly availableMemoryBytes: number;
  /** 0 when not measured again. */
  readonly memoryBandwidthBytesPerSecond: number;
  readonly latency: readonly LatencyReport[];
}

/** What only a live session knows. */
export interface LiveState {
  readonly epoch: bigint;
  readonly queued: number;
  readonly engineReady: boolean;
}

const FLUSH_MS = 15_000;
const LATENCY_SHOWN_MS = 15 * 60_000;
const LATENCY_KEPT_MS = 7 * 24 * 3_600_000;

/** The registry of devices: who they are, whether they are here, what they run and how fast. */
@Injectable()
export class FleetService implements OnModuleInit, OnModuleDestroy {
  /** Latency windows as they close, for whoever learns from them. */
  readonly closedWindows = new Subject<LatencyWindow>();
  private readonly log = new Logger('fleet');
  private readonly leases = new Map<string, Lease>();
  private readonly live = new Map<string, LiveState>();
  private readonly shown = new Map<string, Presence>();
  private readonly seen = new Set<string>();
  private readonly windows: LatencyWindows;
  private timers: NodeJS.Timeout[] = [];
  private lastSweepMs = performance.now();
  private braked = false;

  constructor(
    private readonly devices: DeviceRepository,
    private readonly filters: DeviceFilterRepository,
    private readonly links: DeviceLinks,
    private readonly events: FleetEvents,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.windows = new LatencyWindows(3 * config.heartbeatMs);
  }

  onModuleInit(): void {
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
        guard(() => this.devices.dropWindowsBefore(new Date(Date.now() - LATENCY_KEPT_MS))),
        3_600_000,
      ),
    ];
    for (const timer of this.timers) timer.unref();
  }

  async onModuleDestroy(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    await this.flush();
    await this.devices.addWindows(this.windows.closeAll());
  }

  /** The device of this key, made when it is new. `admit` is asked only then, and refuses by throwing. */
  async register(publicKeyHash: string, wantedName: string, admit: () => Promise<void>): Promise<DeviceRecord> {
    const existing = await this.devices.findByKey(publicKeyHash);
    if (existing) return existing;
    await admit();
    const device = await this.devices.create(publicKeyHash, deviceName(wantedName));
    this.log.log(`device ${device.name} (${device.id}) enrolled`);
    this.changed(device.id);
    return device;
  }

  keyHashOf(deviceId: string): Promise<string | null> {
    return this.devices.keyHashOf(deviceId);
  }

  /** Opens a session: raises the epoch, which ends whatever session the device had before. */
  async hello(
    deviceId: string,
    hello: { bootId: string; agentVersion: string; capabilities: Capabilities; observed: Observed | null },
  ): Promise<DeviceRecord> {
    const device = await this.devices.hello(deviceId, hello, new Date());
    if (!device) throw new DomainError('permission-denied', `device ${deviceId} is not part of this fleet any more`);
    this.leases.set(deviceId, { deviceId, lastBeatMs: performance.now(), connected: true });
    this.live.set(deviceId, { epoch: device.epoch, queued: 0, engineReady: hello.observed !== null });
    this.changed(deviceId);
    return device;
  }

  /** No database write: the lease is memory, the time is flushed for all devices together. */
  beat(deviceId: string, epoch: bigint, beat: Beat): void {
    if (this.live.get(deviceId)?.epoch !== epoch) return;
    this.leases.set(deviceId, { deviceId, lastBeatMs: performance.now(), connected: true });
    const before = this.live.get(deviceId);
    this.live.set(deviceId, { epoch, queued: beat.queued, engineReady: beat.engineReady });
    this.seen.add(deviceId);
    for (const report of beat.latency) {
      const closed = this.windows.add(deviceId, report, Date.now());
      if (closed) this.close([closed]);
    }
    if (beat.latency.length > 0 || before?.engineReady !== beat.engineReady || this.presenceOf(deviceId) !== this.shown.get(deviceId))
      this.changed(deviceId);
  }

  async report(deviceId: string, epoch: bigint, report: PhaseReport): Promise<void> {
    if (await this.devices.report(deviceId, epoch, report)) this.changed(deviceId);
  }

  /** The session's stream has ended. The lease runs on. */
  disconnected(deviceId: string, epoch: bigint): void {
    const lease = this.leases.get(deviceId);
    if (!lease || this.live.get(deviceId)?.epoch !== epoch) return;
    this.leases.set(deviceId, { ...lease, connected: false });
    this.changed(deviceId);
  }

  presenceOf(deviceId: string): Presence {
    return presence(this.leases.get(deviceId), performance.now(), this.config);
  }

  liveState(deviceId: string): LiveState | undefined {
    return this.live.get(deviceId);
  }

  records(): Promise<DeviceRecord[]> {
    return this.devices.list();
  }

  async record(deviceId: string): Promise<DeviceRecord> {
    const device = await this.devices.find(deviceId);
    if (!device) throw new DomainError('not-found', `there is no device ${deviceId}`);
    return device;
  }

  /** By name: every device, or those of a filter. Throws `invalid-argument` for what is no filter. */
  async list(filter?: string): Promise<DeviceView[]> {
    return this.views(await this.devices.list(filter === undefined ? undefined : await this.idsOf(filter)));
  }

  /** Ids of the devices that a filter means, by name. */
  idsOf(filter: string): Promise<string[]> {
    return this.filters.matching(parseFilter(filter).condition, this.present());
  }

  present(): Present {
    const present: Record<'online' | 'suspect', string[]> = { online: [], suspect: [] };
    for (const id of this.leases.keys()) {
      const shown = this.presenceOf(id);
      if (shown !== 'offline') present[shown].push(id);
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

  /** Takes the device out of the fleet: its certificate is worth nothing from now on. */
  async remove(deviceId: string): Promise<void> {
    if (!(await this.devices.remove(deviceId))) throw new DomainError('not-found', `there is no device ${deviceId}`);
    this.links.get(deviceId)?.close('the device was removed from the fleet');
    for (const held of [this.leases, this.live, this.shown]) held.delete(deviceId);
    this.changed(deviceId);
  }

  setLatencyCorrection(deviceId: string, correction: number): Promise<void> {
    return this.devices.setLatencyCorrection(deviceId, correction);
  }

  async setProblem(deviceId: string, message: string): Promise<void> {
    await this.devices.setProblem(deviceId, message);
    this.changed(deviceId);
  }

  changed(deviceId: string): void {
    this.shown.set(deviceId, this.presenceOf(deviceId));
    this.events.emit({ kind: 'device-changed', deviceId });
  }

  private async views(records: readonly DeviceRecord[]): Promise<DeviceView[]> {
    const single = records.length === 1 ? records[0]!.id : undefined;
    const [desired, windows] = await Promise.all([
      this.devices.desired(records.map((device) => device.id)),
      this.devices.windowsSince(new Date(Date.now() - LATENCY_SHOWN_MS), single),
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
        presence: this.presenceOf(device.id),
        lastSeenAt: device.lastSeenAt,
        capabilities: device.capabilities,
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

  /** Presence changes by silence, so somebody must look. */
  private async sweep(): Promise<void> {
    const nowMs = performance.now();
    const sweep = sweepLeases(
      [...this.leases.values()].filter((lease) => this.shown.get(lease.deviceId) !== 'offline'),
      nowMs,
      this.config,
      nowMs - this.lastSweepMs,
      this.config.heartbeatMs,
      this.braked,
    );
    this.lastSweepMs = nowMs;
    this.braked = sweep.braked;
    if (sweep.braked) {
      this.log.warn(`no lease expires: ${sweep.reason}`);
      for (const lease of this.leases.values())
        if (this.shown.get(lease.deviceId) !== 'offline') this.leases.set(lease.deviceId, { ...lease, lastBeatMs: nowMs });
    }
    for (const deviceId of sweep.expired) this.links.get(deviceId)?.close('the lease ran out');
    for (const deviceId of this.leases.keys()) if (this.presenceOf(deviceId) !== this.shown.get(deviceId)) this.changed(deviceId);
    this.close(this.windows.closeDue(Date.now()));
  }

  private close(windows: LatencyWindow[]): void {
    if (windows.length === 0) return;
    void this.devices.addWindows(windows).catch((error: unknown) => this.log.error(error));
    for (const window of windows) this.closedWindows.next(window);
  }

  private async flush(): Promise<void> {
    const ids = [...this.seen];
    this.seen.clear();
    await this.devices.flushSeen(ids, new Date());
  }
}

/** What remains of the wanted name in the characters of a host name. */
const deviceName = (wanted: string): string =>
  wanted
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[-._]+/, '')
    .slice(0, 50) || 'device';
