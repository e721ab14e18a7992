import { randomUUID } from 'node:crypto';
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common';
import type { Subscription } from 'rxjs';
import { AssignmentService } from '../assignment/assignment.service.js';
import type { Actor } from '../audit/audit.js';
import { AuditRepository } from '../audit/audit.repository.js';
import { CatalogService } from '../catalog/catalog.service.js';
import { CONFIG, type Config } from '../config.js';
import { inSystem, inTenant } from '../database/scope.js';
import { targetStep, updateState } from '../domain/update.js';
import type { Fence } from '../database/fence.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { DeviceViews } from '../fleet/device-views.js';
import { FleetService } from '../fleet/fleet.service.js';
import { QueueService } from '../queue/queue.service.js';
import { Leadership } from '../replicas/leadership.js';
import { Metrics } from '../telemetry.js';
import { Timeline } from '../timeline/timeline.service.js';
import type { UpdateView } from './update.js';
import { type OpenTarget, UpdateRepository } from './update.repository.js';

const SWEEP_MS = 30_000;

export interface NewUpdate {
  readonly modelVersionId: string;
  readonly deviceIds?: readonly string[] | undefined;
  /** See libs/filter. */
  readonly filter?: string | undefined;
}

/** Brings devices to a model version: one job raises the desired documents of all of them, and what a device then reports ends its part. */
@Injectable()
export class RolloutService implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly log = new Logger('rollout');
  /** Devices that some running update waits for; what another replica starts is found by the sweep. */
  private readonly awaited = new Set<string>();
  /** One job an update, however many of its targets ask for it at once. */
  private readonly enqueuing = new Map<string, Promise<void>>();
  private subscription: Subscription | undefined;
  private stopped = false;

  constructor(
    private readonly updates: UpdateRepository,
    private readonly catalog: CatalogService,
    private readonly fleet: FleetService,
    private readonly views: DeviceViews,
    private readonly assignment: AssignmentService,
    private readonly queue: QueueService,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
    private readonly leadership: Leadership,
    private readonly timeline: Timeline,
    private readonly audit: AuditRepository,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  onApplicationBootstrap(): void {
    // What a shutdown cuts off, the sweep of the next start finds.
    const guard = (work: Promise<unknown>): void => void work.catch((error: unknown) => this.stopped || this.log.error(error));
    this.subscription = this.events.on('device-changed').subscribe(({ deviceId }) => {
      if (this.awaited.has(deviceId)) guard(inSystem(() => this.advanceDevice(deviceId)));
    });
    this.leadership.every(
      SWEEP_MS,
      (fence) => this.sweep(fence),
      (error) => this.log.error(error),
    );
  }

  onModuleDestroy(): void {
    this.stopped = true;
    this.subscription?.unsubscribe();
  }

  /** Starts an update of these devices, of those that a filter means now, or of the whole fleet: then its version is also what new devices get. */
  async create({ modelVersionId, ...of }: NewUpdate, actor: Actor = 'control-plane'): Promise<UpdateView> {
    if (of.deviceIds && of.filter !== undefined) throw new DomainError('invalid-argument', 'an update names its devices or a filter, not both');
    const version = await this.catalog.version(modelVersionId);
    if (!version.publishedAt)
      throw new DomainError('failed-precondition', `model version ${modelVersionId.slice(0, 12)} of ${version.name} is not published`);
    const fleet = new Set(await this.fleet.ids());
    const deviceIds = of.filter === undefined ? of.deviceIds : (await this.views.idsOf(of.filter)).filter((id) => fleet.has(id));
    if (of.filter !== undefined && deviceIds?.length === 0) throw new DomainError('failed-precondition', 'the filter matches no device');
    const unknown = deviceIds?.filter((id) => !fleet.has(id)) ?? [];
    if (unknown.length > 0)
      throw new DomainError('not-found', `there is no device ${unknown.slice(0, 3).join(', ')}, or it is revoked or in quarantine`);
    const targets = [...new Set(deviceIds ?? fleet)];
    const id = randomUUID();
    await this.updates.create({
      id,
      modelVersionId,
      wholeFleet: deviceIds === undefined,
      deadlineAt: new Date(Date.now() + this.config.updateDeadlineMs),
      deviceIds: targets,
    });
    const after = { modelVersionId, devices: targets.length, wholeFleet: deviceIds === undefined, filter: of.filter ?? null };
    await this.audit.append({ actor, action: 'update.started', subject: `update:${id}`, after });
    this.log.log({ updateId: id, modelVersionId, devices: targets.length, msg: 'update started' });
    for (const deviceId of targets) this.awaited.add(deviceId);
    await this.enqueue(id);
    await this.endIfDone(id);
    this.events.emit({ kind: 'update-changed', updateId: id });
    return this.get(id);
  }

  /** Newest first; at most 100. */
  list(): Promise<UpdateView[]> {
    return this.updates.list();
  }

  async find(id: string): Promise<UpdateView | undefined> {
    return this.updates.find(id);
  }

  async get(id: string): Promise<UpdateView> {
    const update = await this.updates.find(id);
    if (!update) throw new DomainError('not-found', `there is no update ${id.slice(0, 80)}`);
    return update;
  }

  /** One run of the job `push-update`. Safe to repeat: a target that has ended or was pushed already stays as it is. */
  async push(updateId: string, signal: AbortSignal): Promise<void> {
    const tenantId = await this.updates.tenantOf(updateId);
    if (tenantId !== undefined) await inTenant(tenantId, () => this.pushAll(updateId, signal));
  }

  private async pushAll(updateId: string, signal: AbortSignal): Promise<void> {
    let after = '';
    for (;;) {
      const targets = await this.updates.pendingTargets(updateId, after);
      if (targets.length === 0) return;
      after = targets.at(-1)!.deviceId;
      const pushes = await Promise.allSettled(targets.map((target) => this.pushOne(target)));
      signal.throwIfAborted();
      for (const push of pushes) if (push.status === 'rejected') throw push.reason;
    }
  }

  private async pushOne(target: OpenTarget): Promise<void> {
    const { updateId, deviceId } = target;
    if (Date.now() >= target.deadlineMs) return this.advance(target);
    try {
      const { generation } = await this.assignment.assignVersion(deviceId, target.modelVersionId, updateId);
      await this.updates.move(updateId, deviceId, { state: 'pushed', generation });
      this.events.emit({ kind: 'update-changed', updateId });
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      // A device that has not spoken yet stays pending; the sweep asks again.
      if (error.code === 'unavailable') return this.log.debug(`update ${updateId} waits: ${error.message}`);
      await this.end(target, 'failed', { error: error.message });
    }
    await this.advanceDevice(deviceId);
  }

  private async advanceDevice(deviceId: string): Promise<void> {
    const targets = await this.updates.openTargets(deviceId);
    if (targets.length === 0) this.awaited.delete(deviceId);
    for (const target of targets) await this.advance(target);
  }

  private async advance(target: OpenTarget, fence?: Fence): Promise<void> {
    const step = targetStep(target.sight, target.modelVersionId, Date.now(), target.deadlineMs);
    switch (step.kind) {
      case 'wait':
        return;
      case 'push':
        return this.enqueue(target.updateId);
      case 'succeed':
        return this.end(target, 'succeeded', { fence });
      case 'fail':
        return this.end(target, 'failed', { error: step.error, fence });
    }
  }

  private async end(
    target: OpenTarget,
    state: 'succeeded' | 'failed',
    { error, fence }: { error?: string; fence?: Fence | undefined } = {},
  ): Promise<void> {
    if (!(await this.updates.move(target.updateId, target.deviceId, { state, ...(error !== undefined && { error }) }, fence))) return;
    this.metrics.updateTargets.inc({ outcome: state });
    this.timeline.note(target.deviceId, 'update', { updateId: target.updateId, state, error: error ?? null });
    this.log.log({ updateId: target.updateId, deviceId: target.deviceId, state, error, msg: 'update target ended' });
    await this.endIfDone(target.updateId, fence);
    this.events.emit({ kind: 'update-changed', updateId: target.updateId });
  }

  private async endIfDone(updateId: string, fence?: Fence): Promise<void> {
    const state = updateState(await this.updates.targetStates(updateId));
    if (state === 'running' || !(await this.updates.end(updateId, state, new Date(), fence))) return;
    this.log.log({ updateId, state, msg: 'update ended' });
    this.events.emit({ kind: 'update-changed', updateId });
  }

  /** A queue that does not answer loses nothing: the targets stay pending, and the sweep asks again. */
  private enqueue(updateId: string): Promise<void> {
    const before = this.enqueuing.get(updateId);
    if (before) return before;
    const enqueued = this.queue
      .enqueue('push-update', { updateId })
      .catch((error: unknown) => this.log.warn(error instanceof Error ? error.message : String(error)))
      .finally(() => this.enqueuing.delete(updateId));
    this.enqueuing.set(updateId, enqueued);
    return enqueued;
  }

  /** Finds what a killed process, a lost job or a passed deadline left behind. */
  private async sweep(fence: Fence): Promise<void> {
    const awaited = new Set<string>();
    let after = { updateId: '', deviceId: '' };
    for (;;) {
      const targets = await this.updates.allOpenTargets(after);
      if (targets.length === 0) break;
      after = targets.at(-1)!;
      for (const target of targets) awaited.add(target.deviceId);
      await Promise.all(targets.map((target) => this.advance(target, fence)));
    }
    // Added, never replaced: an update that began meanwhile waits for its devices too.
    for (const deviceId of awaited) this.awaited.add(deviceId);
    for (const updateId of await this.updates.endedButRunning()) await this.endIfDone(updateId, fence);
  }
}
