import { Injectable, type OnModuleDestroy } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { DomainError } from '../errors.js';
import { NudgeService } from '../replicas/nudges.js';
import { Replicas } from '../replicas/replicas.service.js';
import { Timeline } from '../timeline/timeline.service.js';
import type { DeviceRecord, Hello, PhaseReport } from './device.js';
import { LABELS_MAX, type LabelPatch } from './device-labels.js';
import { DeviceRepository } from './device.repository.js';
import type { LatencyReport } from './latency-windows.js';
import { Latency } from './latency.js';
import { Leases, type BeatState } from './leases.js';

export interface Beat extends BeatState {
  readonly availableMemoryBytes: number;
  /** 0 when not measured again. */
  readonly memoryBandwidthBytesPerSecond: number;
  readonly latency: readonly LatencyReport[];
}

/** The registry of devices: what they say goes in here, and what others write of them. */
@Injectable()
export class FleetService implements OnModuleDestroy {
  private stopping = false;

  constructor(
    private readonly devices: DeviceRepository,
    private readonly leases: Leases,
    private readonly latency: Latency,
    private readonly replicas: Replicas,
    private readonly nudges: NudgeService,
    private readonly timeline: Timeline,
  ) {}

  onModuleDestroy(): void {
    this.stopping = true;
  }

  /** Opens a session: raises the epoch, which ends whatever session the device had before. */
  async hello(deviceId: string, hello: Hello): Promise<DeviceRecord> {
    const device = await this.devices.hello(deviceId, hello, this.replicas.id);
    if (!device) throw new DomainError('permission-denied', `device ${deviceId} is not part of this fleet any more`);
    this.nudges.tell({ kind: 'session', deviceId });
    const detail = { epoch: Number(device.epoch), agentVersion: hello.agentVersion, replica: this.replicas.id };
    this.timeline.note(deviceId, 'session-opened', detail, device.epoch);
    this.leases.open(device, device.epoch, device.observed, hello.observed !== null);
    return device;
  }

  /** No database write: the lease is memory, the time is flushed for all devices together. */
  beat(deviceId: string, epoch: bigint, beat: Beat): void {
    if (!this.leases.beat(deviceId, epoch, beat) || beat.latency.length === 0) return;
    for (const report of beat.latency) this.latency.add(deviceId, report);
    this.changed(deviceId);
  }

  async report(deviceId: string, epoch: bigint, report: PhaseReport): Promise<void> {
    if (!(await this.devices.report(deviceId, epoch, report))) return;
    const { generation, observed, error } = report;
    if (report.phase === 'active') this.timeline.note(deviceId, 'applied', { generation, sliceId: observed?.sliceId ?? null }, epoch);
    if (report.phase === 'failed') this.timeline.note(deviceId, 'failed', { generation, error }, epoch);
    if (report.observed) this.leases.runs(deviceId, epoch, report.observed);
    this.changed(deviceId);
  }

  /** The session's stream has ended. The lease runs on. */
  disconnected(deviceId: string, epoch: bigint, reason: string): void {
    this.timeline.note(deviceId, 'session-ended', { epoch: Number(epoch), reason }, epoch);
    const lastBeatAt = this.leases.ended(deviceId, epoch);
    // What a process that stops held stays written as its own: its devices come back.
    if (lastBeatAt && !this.stopping) this.replicas.released(deviceId, epoch, lastBeatAt);
  }

  /** Of every device that is not refused, whether it is here or not. */
  ids(): Promise<string[]> {
    return this.devices.ids();
  }

  /** All devices, here or not. */
  count(): Promise<number> {
    return this.devices.count();
  }

  async record(deviceId: string): Promise<DeviceRecord> {
    const device = await this.devices.find(deviceId);
    if (!device) throw new DomainError('not-found', `there is no device ${deviceId}`);
    return device;
  }

  async patchLabels(deviceId: string, patch: LabelPatch, actor: Actor): Promise<void> {
    const labels = await this.devices.patchLabels(deviceId, patch, LABELS_MAX, actor);
    if (labels === null) throw new DomainError('not-found', `there is no device ${deviceId}`);
    if (labels === 'too-many') throw new DomainError('invalid-argument', `the device would have more than ${LABELS_MAX} labels`);
    this.changed(deviceId);
  }

  /** The device is no longer in the fleet: nothing of it stays in memory. */
  forget(deviceId: string): void {
    this.leases.forget(deviceId);
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
  corrected(tolerance: number): AsyncGenerator<{ id: string; tenantId: string; latencyCorrection: number }[]> {
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
    this.leases.changed(deviceId);
  }
}

/** One page after another, each read when the one before is done with. */
async function* pages<T>(read: (after: string) => Promise<T[]>, idOf: (item: T) => string): AsyncGenerator<T[]> {
  for (let page = await read(''); page.length > 0; page = await read(idOf(page.at(-1)!))) yield page;
}
