import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { CONFIG, type Config } from '../config.js';
import { inSystem, isHere } from '../database/scope.js';
import { concernChanges, type Concerns } from '../domain/condition-news.js';
import { HOLDER_RETURN_MS, presence, sweepLeases, type Presence } from '../domain/presence.js';
import { reconnectJitterMs } from '../domain/reconnect.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Timeline } from '../timeline/timeline.service.js';
import type { Condition, EffectiveSlice, Observed } from './device.js';
import type { Present } from './device-filter.repository.js';
import { DeviceLinks } from './device-links.js';
import { DeviceRepository } from './device.repository.js';
import { RunKeys } from './run-keys.js';

/** What only a live session knows. */
export interface LiveState {
  readonly epoch: bigint;
  readonly queued: number;
  readonly engineReady: boolean;
  readonly condition: Condition | null;
  readonly effective: EffectiveSlice | null;
}

/** What a beat says of the device's state. */
export interface BeatState {
  readonly queued: number;
  readonly engineReady: boolean;
  /** Null: as the last one that told. */
  readonly condition: Condition | null;
  /** Absent: what runs answers. */
  readonly effective?: EffectiveSlice;
}

/** A device with a lease, or whose lease ran out in this process's life. One small object each: there are many. */
interface Live extends LiveState {
  readonly deviceId: string;
  readonly tenantId: string;
  epoch: bigint;
  queued: number;
  engineReady: boolean;
  condition: Condition | null;
  effective: EffectiveSlice | null;
  /** What troubles the box, as its timeline was told. */
  concerns: Concerns;
  /** Model version and slice that it runs. */
  runs: string | undefined;
  lastBeatMs: number;
  connected: boolean;
  /** The presence that was told last. */
  shown: Presence;
  /** Has beaten since the last flush. */
  seen: boolean;
}

const FLUSH_MS = 60_000;
const SWEEP_MS = 500;

/** Which devices are here, in memory: a beat renews a lease and writes nothing; presence follows from the lease and the clock. */
@Injectable()
export class Leases implements OnModuleInit, OnModuleDestroy {
  private readonly log = new Logger('fleet');
  private readonly live = new Map<string, Live>();
  private readonly runKeys = new RunKeys();
  private readonly sweepMs: number;
  private timers: NodeJS.Timeout[] = [];
  private sweptAtMs = performance.now();
  private brakedAtMs: number | null = null;

  constructor(
    private readonly devices: DeviceRepository,
    private readonly links: DeviceLinks,
    private readonly events: FleetEvents,
    private readonly timeline: Timeline,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.sweepMs = Math.min(SWEEP_MS, config.heartbeatMs);
  }

  onModuleInit(): void {
    this.timers = [
      setInterval(() => this.sweep(), this.sweepMs),
      setInterval(() => void inSystem(() => this.flush()).catch((error: unknown) => this.log.error(error)), FLUSH_MS),
    ];
    for (const timer of this.timers) timer.unref();
  }

  async onModuleDestroy(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    await inSystem(() => this.flush());
  }

  /**
   * Devices that were here when the control plane last was, and that no living replica holds: they have not gone because it did. They get a
   * lease to come back in, from the moment on by which they dial again.
   */
  async recall(livingReplicaIds: readonly string[]): Promise<void> {
    const devices = await inSystem(() => this.devices.lastHere(FLUSH_MS + this.config.leaseMs, livingReplicaIds));
    const lastBeatMs = performance.now() + Math.max(HOLDER_RETURN_MS, reconnectJitterMs(devices.length));
    for (const { id, tenantId, epoch } of devices) {
      if (this.live.has(id)) continue;
      this.live.set(id, {
        ...{
          deviceId: id,
          tenantId,
          epoch,
          lastBeatMs,
          queued: 0,
          engineReady: false,
          runs: undefined,
          condition: null,
          effective: null,
          concerns: [],
        },
        ...{ connected: false, shown: 'suspect', seen: false },
      });
    }
  }

  /** A session was opened. Of two at once the higher epoch holds the lease, whichever answer came first. */
  open(
    { id: deviceId, tenantId }: { readonly id: string; readonly tenantId: string },
    epoch: bigint,
    observed: Observed | null,
    isRunning: boolean,
  ): void {
    const fresh = { epoch, queued: 0, engineReady: isRunning, runs: this.runKeys.of(observed), condition: null, effective: null, concerns: [] };
    const begun = { lastBeatMs: performance.now(), connected: true, seen: false };
    const live = this.live.get(deviceId);
    if (!live) this.live.set(deviceId, { deviceId, tenantId, shown: 'offline', ...fresh, ...begun });
    else if (live.epoch < epoch) Object.assign(live, fresh, begun);
    this.changed(deviceId);
  }

  /** False for a beat of a session that was replaced: it has no effect. */
  beat(deviceId: string, epoch: bigint, { queued, engineReady, condition, effective }: BeatState): boolean {
    const live = this.live.get(deviceId);
    if (live?.epoch !== epoch) return false;
    const isNews = condition !== null || live.engineReady !== engineReady || live.shown !== 'online';
    if (live.engineReady !== engineReady) this.timeline.note(deviceId, 'engine', { ready: engineReady }, epoch);
    live.lastBeatMs = performance.now();
    live.connected = true;
    live.seen = true;
    live.queued = queued;
    live.engineReady = engineReady;
    if (condition) this.judge(live, condition);
    if (live.effective?.sliceId !== effective?.sliceId) this.stepped(live, effective ?? null);
    if (isNews) this.changed(deviceId);
    return true;
  }

  private stepped(live: Live, effective: EffectiveSlice | null): void {
    const { deviceId, epoch } = live;
    live.effective = effective;
    const detail = effective ? { sliceId: effective.sliceId, reason: effective.reason } : { sliceId: 'the assigned slice', reason: '' };
    this.timeline.note(deviceId, 'effective', detail, epoch);
    this.changed(deviceId);
  }

  private judge(live: Live, condition: Condition): void {
    live.condition = condition;
    const { concerns, changes } = concernChanges(live.concerns, condition);
    live.concerns = concerns;
    for (const change of changes) this.timeline.note(live.deviceId, 'condition', { ...change }, live.epoch);
  }

  /** What the device says that it runs now. */
  runs(deviceId: string, epoch: bigint, observed: Observed): void {
    const live = this.live.get(deviceId);
    if (live?.epoch === epoch) live.runs = this.runKeys.of(observed);
  }

  /** The session's stream has ended; the lease runs on. When the device beat last, or null where a newer session holds the lease. */
  ended(deviceId: string, epoch: bigint): Date | null {
    const live = this.live.get(deviceId);
    if (live?.epoch !== epoch) return null;
    live.connected = false;
    this.changed(deviceId);
    return lastBeatAt(live);
  }

  /** Nothing of the device stays in memory. */
  forget(deviceId: string): void {
    this.live.delete(deviceId);
  }

  /** Another replica holds the device now: a lease that only counts down here is no news any more. */
  yield(deviceId: string): void {
    if (this.live.get(deviceId)?.connected === false) this.live.delete(deviceId);
  }

  has(deviceId: string): boolean {
    return this.live.has(deviceId);
  }

  presenceOf(deviceId: string): Presence {
    return presence(this.live.get(deviceId), performance.now(), this.config);
  }

  state(deviceId: string): LiveState | undefined {
    return this.live.get(deviceId);
  }

  /** Since the last flush; the database knows what was before it. */
  lastSeenAt(deviceId: string): Date | null {
    const live = this.live.get(deviceId);
    return live?.seen ? lastBeatAt(live) : null;
  }

  /** Of the devices in the caller's scope whose sessions live here: the sum over replicas is the fleet. */
  present(): Present {
    const present: Record<'online' | 'suspect', string[]> = { online: [], suspect: [] };
    const nowMs = performance.now();
    for (const live of this.live.values()) {
      if (!isHere(live)) continue;
      const shown = presence(live, nowMs, this.config);
      if (shown !== 'offline') present[shown].push(live.deviceId);
    }
    return present;
  }

  /** Devices in the caller's scope that may be given work. */
  ready(): { readonly deviceId: string; readonly runs: string | undefined; readonly queued: number }[] {
    const nowMs = performance.now();
    return [...this.live.values()].filter((live) => isHere(live) && live.engineReady && presence(live, nowMs, this.config) === 'online');
  }

  /** In the caller's scope. */
  deviceIds(): string[] {
    return [...this.live.values()].filter(isHere).map((live) => live.deviceId);
  }

  /** Devices that this process has seen. */
  get size(): number {
    return this.live.size;
  }

  /** Whether no lease expires because the fault is more likely ours. */
  get isBraked(): boolean {
    return this.brakedAtMs !== null && performance.now() - this.brakedAtMs <= this.config.leaseMs;
  }

  /** Tells everybody who listens, other replicas too. */
  changed(deviceId: string): void {
    const live = this.live.get(deviceId);
    if (live) this.show(live);
    this.events.emit({ kind: 'device-changed', deviceId, ...(live && { tenantId: live.tenantId }) });
  }

  private show(live: Live): void {
    const shown = this.presenceOf(live.deviceId);
    if (shown !== live.shown) this.timeline.note(live.deviceId, 'presence', { to: shown, epoch: Number(live.epoch) }, live.epoch);
    live.shown = shown;
  }

  /** Presence changes by silence, so somebody must look. */
  private sweep(): void {
    const nowMs = performance.now();
    const leases = [...this.live.values()].filter((lease) => lease.shown !== 'offline');
    const { expired, brake } = sweepLeases(leases, nowMs, this.config, {
      sinceSweepMs: nowMs - this.sweptAtMs,
      sweepMs: this.sweepMs,
      sinceBrakeMs: this.brakedAtMs === null ? Infinity : nowMs - this.brakedAtMs,
    });
    this.sweptAtMs = nowMs;
    if (brake !== null) {
      this.log.warn(`no lease expires: ${brake}`);
      this.brakedAtMs = nowMs;
      for (const lease of leases) lease.lastBeatMs = nowMs;
    }
    for (const deviceId of expired) this.links.get(deviceId)?.close('the lease ran out');
    for (const lease of leases) if (presence(lease, nowMs, this.config) !== lease.shown) this.changed(lease.deviceId);
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

const lastBeatAt = ({ lastBeatMs }: Live): Date => new Date(Date.now() - (performance.now() - lastBeatMs));
