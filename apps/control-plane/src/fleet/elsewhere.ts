import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { CONFIG, type Config } from '../config.js';
import { isHere } from '../database/scope.js';
import { betterPresence, presenceElsewhere, type Presence } from '../domain/presence.js';
import { FleetEvents } from '../events/fleet-events.js';
import { NudgeService } from '../replicas/nudges.js';
import { ReplicaRepository } from '../replicas/replica.repository.js';
import { Replicas } from '../replicas/replicas.service.js';
import type { DeviceRecord, Observed } from './device.js';
import type { Present } from './device-filter.repository.js';
import { DeviceLinks } from './device-links.js';
import { Leases } from './leases.js';
import { RunKeys } from './run-keys.js';

/** A device whose session another replica, at `address`, holds. */
export interface HeldElsewhere {
  readonly tenantId: string;
  readonly address: string;
  readonly epoch: bigint;
  /** Model version and slice that it runs. */
  readonly runs: string | undefined;
}

const STRAY_MS = 10_000;
const READ_MS = 500;
/** Reading a large fleet takes so small a share of the time, one part in this many; what it found serves meanwhile. */
const READ_SHARE = 20;
/** Below this a read is waited for. */
const QUICK_MS = 20;

/** Sessions that other replicas hold, as the database tells; and those here that it no longer knows. */
@Injectable()
export class Elsewhere implements OnModuleInit, OnModuleDestroy {
  private readonly log = new Logger('fleet');
  private readonly runKeys = new RunKeys();
  private timer: NodeJS.Timeout | undefined;
  private held: ReadonlyMap<string, HeldElsewhere> = new Map();
  private readonly lastRead = { atMs: -Infinity, tookMs: 0 };
  private reading: Promise<void> | undefined;

  constructor(
    private readonly leases: Leases,
    private readonly links: DeviceLinks,
    private readonly replicas: Replicas,
    private readonly holders: ReplicaRepository,
    private readonly events: FleetEvents,
    private readonly nudges: NudgeService,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  onModuleInit(): void {
    const look = (deviceIds: readonly string[]): void => void this.endStray(deviceIds).catch((error: unknown) => this.log.error(error));
    this.timer = setInterval(() => look(this.links.all().map((link) => link.deviceId)), STRAY_MS);
    this.timer.unref();
    this.nudges.on('session', (deviceId) => {
      this.leases.yield(deviceId);
      look([deviceId]);
    });
  }

  onModuleDestroy(): void {
    clearInterval(this.timer);
  }

  /** By device id, of all tenants, as it was half a second ago at the most; in a fleet whose reading takes long, a little before that. */
  async read(): Promise<ReadonlyMap<string, HeldElsewhere>> {
    if (this.replicas.peers().length === 0) return new Map();
    const { atMs, tookMs } = this.lastRead;
    const isQuick = tookMs < QUICK_MS;
    if (performance.now() - atMs > (isQuick ? READ_MS : Math.max(READ_MS, READ_SHARE * tookMs))) {
      this.reading ??= this.readAll().finally(() => (this.reading = undefined));
      if (isQuick || atMs === -Infinity) await this.reading;
      else this.reading.catch((error: unknown) => this.log.warn(String(error)));
    }
    return this.held;
  }

  private async readAll(): Promise<void> {
    const startedAtMs = performance.now();
    const addresses = new Map(this.replicas.peers().map((peer) => [peer.id, peer.address]));
    const rows = await this.holders.heldBy([...addresses.keys()]);
    this.held = new Map(
      rows.map(({ deviceId, tenantId, replicaId, epoch, observed }) => [
        deviceId,
        { tenantId, address: addresses.get(replicaId)!, epoch, runs: this.runKeys.of(observed as Observed | null) },
      ]),
    );
    Object.assign(this.lastRead, { atMs: startedAtMs, tookMs: performance.now() - startedAtMs });
  }

  /** What this process knows of a device that is here, else what the database says; of one whose replica is gone, the better of both. */
  presenceOf({ id, replicaId, lastSeenAt }: DeviceRecord): Presence {
    const here = this.leases.has(id) ? this.leases.presenceOf(id) : null;
    if (here !== null && (replicaId === null || replicaId === this.replicas.id)) return here;
    const there = presenceElsewhere(this.holderSilentMs(replicaId), lastSeenAt && Date.now() - lastSeenAt.getTime(), this.config);
    return here === null || (replicaId !== null && this.replicas.isAlive(replicaId)) ? there : betterPresence(here, there);
  }

  /** Who is here in the whole fleet of the caller's scope. */
  async present(): Promise<Present> {
    const shown = new Map(this.leases.deviceIds().map((id) => [id, this.leases.presenceOf(id)]));
    for (const { deviceId, replicaId } of (await this.holders.heldBy(this.replicas.others())).filter(isHere)) {
      const there = presenceElsewhere(this.holderSilentMs(replicaId), null, this.config);
      shown.set(deviceId, this.replicas.isAlive(replicaId) ? there : betterPresence(shown.get(deviceId) ?? 'offline', there));
    }
    const present: Record<Presence, string[]> = { online: [], suspect: [], offline: [] };
    for (const [id, presence] of shown) present[presence].push(id);
    return present;
  }

  private holderSilentMs(replicaId: string | null): number | null {
    const holder = replicaId === null ? undefined : this.replicas.other(replicaId);
    if (!holder) return null;
    return this.replicas.isAlive(holder.id) ? 0 : Math.max(1, holder.silentMs);
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
      this.leases.forget(deviceId);
      this.events.receive({ kind: 'device-changed', deviceId });
    }
  }
}
