import { Injectable } from '@nestjs/common';
import { devicesHere, isHere } from '../database/scope.js';
import { DomainError } from '../errors.js';
import type { DeviceRecord, DeviceView } from './device.js';
import { asksPresence, filterable, parseFilter } from './device-filter.js';
import { DeviceFilterRepository, type NamePage } from './device-filter.repository.js';
import { DeviceRepository } from './device.repository.js';
import { Elsewhere } from './elsewhere.js';
import { Latency } from './latency.js';
import { Leases } from './leases.js';
import { sampleForRouting } from './routing-sample.js';

export interface DeviceQuery {
  readonly filter?: string | undefined;
  /** At most, and without it, DEVICE_PAGE_MAX. */
  readonly limit?: number | undefined;
  /** The name of the last device of the page before. */
  readonly after?: string | undefined;
}

export const DEVICE_PAGE_MAX = 1_000;
const ROUTED_MAX = 64;

/** Devices as operators and the router see them: what the database says, and what only their live sessions know. */
@Injectable()
export class DeviceViews {
  constructor(
    private readonly devices: DeviceRepository,
    private readonly filters: DeviceFilterRepository,
    private readonly leases: Leases,
    private readonly elsewhere: Elsewhere,
    private readonly latency: Latency,
  ) {}

  async get(deviceId: string): Promise<DeviceView> {
    const device = await this.devices.find(deviceId);
    if (!device) throw new DomainError('not-found', `there is no device ${deviceId}`);
    const view = (await this.views([device]))[0]!;
    if (devicesHere()?.matches(filterable(view)) === false) throw new DomainError('not-found', `there is no device ${deviceId}`);
    return view;
  }

  /** By name: a page of all devices, or of those of a filter. Throws `invalid-argument` for what is no filter. */
  async list({ filter, limit = DEVICE_PAGE_MAX, after = '' }: DeviceQuery = {}): Promise<DeviceView[]> {
    const page = { after, limit: Math.max(1, Math.min(limit, DEVICE_PAGE_MAX)) };
    if (filter === undefined && !devicesHere()) return this.views(await this.devices.page(page));
    return this.views(await this.devices.list(await this.matching(filter ?? 'true', page)));
  }

  /** Ids of the devices that a filter means, by name. */
  idsOf(filter: string): Promise<string[]> {
    return this.matching(filter);
  }

  /** Devices to route to: all of a small fleet, a sample of a large one. */
  async routable(): Promise<DeviceView[]> {
    if (this.leases.size <= ROUTED_MAX && (await this.devices.count()) <= ROUTED_MAX) return this.views(await this.devices.list());
    const elsewhere = [...(await this.elsewhere.read())].flatMap(([deviceId, far]) => (isHere(far) ? [{ deviceId, runs: far.runs, queued: 0 }] : []));
    const sample = sampleForRouting([...this.leases.ready(), ...elsewhere], ROUTED_MAX, Math.random);
    return this.views(await this.devices.list(sample.map(({ deviceId }) => deviceId)));
  }

  private async matching(filter: string, page?: NamePage): Promise<string[]> {
    const [asked, own] = [parseFilter(filter).condition, devicesHere()?.condition];
    const condition = own ? { kind: 'and' as const, left: own, right: asked } : asked;
    const present = asksPresence(condition) ? await this.elsewhere.present() : { online: [], suspect: [] };
    return this.filters.matching(condition, present, page);
  }

  private async views(records: readonly DeviceRecord[]): Promise<DeviceView[]> {
    const [desired, latency] = await Promise.all([this.devices.desired(records.map(({ id }) => id)), this.latency.of(records)]);
    return records.map((device) => ({
      id: device.id,
      name: device.name,
      labels: device.labels,
      agentVersion: device.agentVersion,
      standing: device.standing,
      standingReason: device.standingReason,
      presence: this.elsewhere.presenceOf(device),
      lastSeenAt: this.leases.lastSeenAt(device.id) ?? device.lastSeenAt,
      capabilities: device.capabilities,
      condition: this.leases.state(device.id)?.condition ?? null,
      effective: this.leases.state(device.id)?.effective ?? null,
      desired: desired.get(device.id) ?? null,
      observed: device.observed,
      phase: device.phase,
      phaseError: device.phaseError,
      activation: device.activation,
      fetchedBytes: device.fetchedBytes,
      totalBytes: device.totalBytes,
      latency: latency.get(device.id) ?? null,
      latencyCorrection: device.latencyCorrection,
    }));
  }
}
