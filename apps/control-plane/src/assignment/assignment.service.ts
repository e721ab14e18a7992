import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { mean } from '@matfleet/model';
import { traced, traceParent } from '@matfleet/tracing';
import type { Actor } from '../audit/audit.js';
import { AuditRepository } from '../audit/audit.repository.js';
import { CatalogService, type ModelVersion } from '../catalog/catalog.service.js';
import { CONFIG, type Config } from '../config.js';
import { inSystem, inTenant } from '../database/scope.js';
import { assign, DEFAULT_POLICY, type AssignmentDecision, type Measured } from '../domain/assignment.js';
import { nextGeneration } from '../domain/epoch.js';
import type { ChangeOver } from '../domain/rollout-target.js';
import { learnCorrection, relaxCorrection } from '../domain/latency-correction.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { NudgeService } from '../replicas/nudges.js';
import type { DeviceRecord } from '../fleet/device.js';
import { DeviceLinks, type DesiredDocument } from '../fleet/device-links.js';
import { FleetService } from '../fleet/fleet.service.js';
import { Timeline } from '../timeline/timeline.service.js';
import type { LatencyWindow } from '../fleet/latency-windows.js';
import { Latency } from '../fleet/latency.js';
import { AssignmentRepository, type AssignmentRecord, type ExplainedAssignment } from './assignment.repository.js';

/** Fewer tokens in a window than this say nothing about a device. */
const WINDOW_TOKENS_MIN = 8;
const SWEEP_MS = 10_000;
/** Without traffic for this long a device counts as unmeasured, and what was learned about it fades. */
const IDLE_MS = 2 * 60_000;
/** Natural logarithm of a correction that is as good as none. */
const CORRECTION_TOLERANCE = 0.05;
const CORRECTION_HALF_LIFE_MS = 30 * 60_000;
const CONTEXT_TOKENS_MAX = 4_096;
const SMALL_MODEL_CONTEXT_TOKENS = 512;

interface Learned extends Measured {
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly atMs: number;
}

/** The only writer of a device's desired document: decides its slice, keeps the explanation, sends the document. */
@Injectable()
export class AssignmentService implements OnModuleInit, OnModuleDestroy {
  private readonly log = new Logger('assignment');
  private readonly measured = new Map<string, Learned>();
  /** One evaluation of a device at a time; the next waits for it. */
  private readonly turns = new Map<string, Promise<unknown>>();
  private readonly stops: (() => void)[] = [];

  constructor(
    private readonly assignments: AssignmentRepository,
    private readonly catalog: CatalogService,
    private readonly fleet: FleetService,
    private readonly latency: Latency,
    private readonly links: DeviceLinks,
    private readonly events: FleetEvents,
    private readonly nudges: NudgeService,
    private readonly timeline: Timeline,
    private readonly audit: AuditRepository,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  onModuleInit(): void {
    const guard = (work: Promise<unknown>): void => void work.catch((error: unknown) => this.log.error(error));
    const windows = this.latency.closed.subscribe((window) => guard(inTenant(window.tenantId, () => this.learn(window))));
    // Of all replicas the one that published: the devices may be anybody's.
    const published = this.events.emitted.subscribe(
      (event) => event.kind === 'model-published' && event.tenantId !== undefined && guard(inTenant(event.tenantId, () => this.evaluateUnassigned())),
    );
    this.nudges.on('desired', (deviceId) => this.links.get(deviceId) && guard(inSystem(() => this.nudge(deviceId))));
    const timer = setInterval(() => guard(inSystem(() => this.sweep())), SWEEP_MS);
    timer.unref();
    this.stops.push(
      () => windows.unsubscribe(),
      () => published.unsubscribe(),
      () => clearInterval(timer),
    );
  }

  async onModuleDestroy(): Promise<void> {
    for (const stop of this.stops) stop();
    await Promise.allSettled(this.turns.values());
  }

  /** Newest first. */
  async history(deviceId: string): Promise<ExplainedAssignment[]> {
    await this.fleet.record(deviceId);
    return this.assignments.history(deviceId);
  }

  /** Decides again with what is known now, and moves the device when the decision changed. Returns the newest assignment, null without one. */
  evaluate(deviceId: string): Promise<AssignmentRecord | null> {
    return this.inTurn(deviceId, async () => this.decideFor(await this.fleet.record(deviceId), 0));
  }

  /** The same because an operator asks, which is written down with what came of it. */
  async evaluateFor(actor: Actor, deviceId: string): Promise<void> {
    await this.fleet.record(deviceId);
    const told = (assignment: AssignmentRecord | null) => assignment && { generation: assignment.generation, sliceId: assignment.sliceId };
    const before = told(await this.assignments.newest(deviceId));
    const after = told(await this.evaluate(deviceId));
    await this.audit.append({ actor, action: 'device.evaluated', subject: `device:${deviceId}`, before, after });
  }

  /**
   * Takes a device's new session in: decides, lets `open` make the session reachable, and sends the newest document when the device lacks it.
   * `storedGeneration` is what the device says it holds: a new document must lie beyond it.
   */
  async welcome(deviceId: string, storedGeneration: number, open: () => void): Promise<void> {
    await this.inTurn(deviceId, async () => {
      const decided = this.fleet.record(deviceId).then((device) => this.decideFor(device, storedGeneration));
      const newest = await decided.catch((error: unknown) => {
        // A device must get its session although its assignment cannot be decided: it keeps what it runs.
        this.log.error(error);
        return null;
      });
      open();
      if (newest && newest.generation > storedGeneration) this.send(newest);
    });
  }

  private async decideFor(device: DeviceRecord, storedGeneration: number): Promise<AssignmentRecord | null> {
    const [version, newest] = await Promise.all([
      device.modelVersionId ? this.catalog.findVersion(device.modelVersionId) : this.catalog.currentVersion(),
      this.assignments.newest(device.id),
    ]);
    if (!version?.publishedAt || !device.capabilities) return newest;
    const decision = this.decide(device, version, newest);
    if (decision.sliceId === null) {
      if (!newest) await this.fleet.setProblem(device.id, decision.reason);
      this.log.warn({ deviceId: device.id, device: device.name, reason: decision.reason, msg: 'no slice fits' });
      return newest;
    }
    const same = newest && newest.modelVersionId === version.id && newest.sliceId === decision.sliceId && newest.generation >= storedGeneration;
    return same
      ? newest
      : this.write(device, version, decision, {
          newest,
          storedGeneration,
          rolloutId: null,
          changeOver: newest?.modelVersionId === version.id ? newest.changeOver : 'at-once',
        });
  }

  /**
   * Brings a device to a model version, with the slice of it that suits the device. Safe to repeat; what failed is asked for anew. Returns the
   * generation to wait for.
   * Throws `failed-precondition` when no slice of the version fits.
   */
  assignVersion(
    deviceId: string,
    modelVersionId: string,
    { rolloutId, changeOver }: { rolloutId: string; changeOver: ChangeOver },
  ): Promise<{ generation: number; sliceId: string }> {
    return this.inTurn(deviceId, async () => {
      const [device, version, newest] = await Promise.all([
        this.fleet.record(deviceId),
        this.catalog.version(modelVersionId),
        this.assignments.newest(deviceId),
      ]);
      if (!version.publishedAt)
        throw new DomainError('failed-precondition', `model version ${modelVersionId.slice(0, 12)} of ${version.name} is not published`);
      if (!device.capabilities) throw new DomainError('unavailable', `device ${device.name} has not said yet what it can do`);
      if (newest?.modelVersionId === modelVersionId && newest.changeOver === changeOver && device.phase !== 'failed') {
        if (device.modelVersionId !== modelVersionId) await this.assignments.pinVersion(deviceId, modelVersionId);
        this.send(newest);
        return newest;
      }
      const decision = this.decide(device, version, newest);
      if (decision.sliceId === null)
        throw new DomainError('failed-precondition', `${version.name} does not fit device ${device.name}: ${decision.reason}`);
      return this.write(device, version, decision, { newest, storedGeneration: 0, rolloutId, changeOver });
    });
  }

  /** Sends the newest desired document again, or asks the replica that holds the device to. */
  async nudge(deviceId: string): Promise<void> {
    if (!this.links.get(deviceId)) return this.nudges.tell({ kind: 'desired', deviceId });
    return this.inTurn(deviceId, async () => {
      const newest = this.links.get(deviceId) && (await this.assignments.newest(deviceId));
      if (newest) this.send(newest);
    });
  }

  private send(document: DesiredDocument & { readonly deviceId: string }): void {
    if (!this.links.send(document.deviceId, { kind: 'desired', document })) this.nudges.tell({ kind: 'desired', deviceId: document.deviceId });
  }

  private decide(device: DeviceRecord, version: ModelVersion, newest: AssignmentRecord | null): AssignmentDecision {
    const learned = this.measured.get(device.id);
    const measured = learned && newest && learned.sliceId === newest.sliceId && learned.modelVersionId === newest.modelVersionId ? learned : null;
    return assign({
      device: device.capabilities!,
      modelVersionId: version.id,
      manifest: version.manifest,
      contextTokens: contextTokens(version),
      targetInterTokenMs: this.config.targetInterTokenMs,
      latencyCorrection: device.latencyCorrection,
      current: newest && { modelVersionId: newest.modelVersionId, sliceId: newest.sliceId, steadiness: newest.steadiness },
      measured: measured && { interTokenMs: measured.interTokenMs, tokens: measured.tokens, slowWindows: measured.slowWindows },
      nowMs: Date.now(),
      policy: { ...DEFAULT_POLICY, dwellMs: this.config.upgradeDwellMs },
    });
  }

  private write(
    device: DeviceRecord,
    version: ModelVersion,
    decision: AssignmentDecision,
    from: { newest: AssignmentRecord | null; storedGeneration: number; rolloutId: string | null; changeOver: ChangeOver },
  ): Promise<AssignmentRecord> {
    const generation = Number(nextGeneration(BigInt(device.generation), BigInt(from.storedGeneration)));
    const attributes = { 'matfleet.device.id': device.id, 'matfleet.generation': generation, 'matfleet.slice': decision.sliceId ?? undefined };
    return traced('assign', { attributes }, () => this.writeGeneration(generation, device, version, decision, from));
  }

  private async writeGeneration(
    generation: number,
    device: DeviceRecord,
    version: ModelVersion,
    decision: AssignmentDecision,
    from: { newest: AssignmentRecord | null; rolloutId: string | null; changeOver: ChangeOver },
  ): Promise<AssignmentRecord> {
    const next = {
      deviceId: device.id,
      generation,
      modelVersionId: version.id,
      sliceId: decision.sliceId!,
      contextTokens: contextTokens(version),
      reason: decision.reason,
      explanation: decision.explanation,
      rolloutId: from.rolloutId,
      changeOver: from.changeOver,
      traceParent: traceParent() ?? null,
    };
    if (!(await this.assignments.append(next, device.generation, from.rolloutId !== null)))
      throw new DomainError('unavailable', `device ${device.name} was assigned by another writer at generation ${device.generation}`);
    this.measured.delete(device.id);
    this.log.log({
      deviceId: device.id,
      device: device.name,
      generation,
      sliceId: next.sliceId,
      cause: decision.explanation.cause,
      reason: decision.reason,
      msg: 'slice assigned',
    });
    const { sliceId, modelVersionId, reason, rolloutId } = next;
    const detail = { generation, modelName: version.name, modelVersionId, sliceId, from: from.newest?.sliceId ?? null, reason, rolloutId };
    this.timeline.note(device.id, 'assigned', detail);
    const { explanation, ...document } = next;
    const written = { ...document, modelName: version.name, steadiness: explanation.steadiness, createdAt: new Date() };
    this.send(written);
    this.fleet.changed(device.id);
    return written;
  }

  /** Closes the loop: a window's measurement corrects the prediction, and may move the device. */
  private async learn(window: LatencyWindow): Promise<void> {
    const newest = await this.assignments.newest(window.deviceId);
    const interTokenMs = mean(window.interToken);
    if (!newest || newest.sliceId !== window.sliceId || newest.modelVersionId !== window.modelVersionId || interTokenMs === undefined) return;
    if (window.interToken.count < WINDOW_TOKENS_MIN) return;
    const explanation = await this.assignments.explanation(window.deviceId, newest.generation);
    const predictedMs = explanation?.candidates.find((candidate) => candidate.sliceId === window.sliceId)?.uncorrectedInterTokenMs;
    if (predictedMs === undefined) return;
    const { latencyCorrection } = await this.fleet.record(window.deviceId);
    await this.fleet.setLatencyCorrection(
      window.deviceId,
      learnCorrection(latencyCorrection, { measuredMs: interTokenMs, predictedMs, tokens: window.interToken.count }),
    );
    const before = this.measured.get(window.deviceId);
    const wasSlow = before && before.sliceId === window.sliceId && before.modelVersionId === window.modelVersionId ? before.slowWindows : 0;
    this.measured.set(window.deviceId, {
      modelVersionId: window.modelVersionId,
      sliceId: window.sliceId,
      interTokenMs,
      tokens: window.interToken.count,
      slowWindows: interTokenMs > this.config.targetInterTokenMs ? wasSlow + 1 : 0,
      atMs: Date.now(),
    });
    await this.evaluate(window.deviceId);
  }

  /** Anti-entropy, over all tenants: what a lost message or a silent device left behind is found here. */
  private async sweep(): Promise<void> {
    for await (const ids of this.fleet.behind()) await Promise.all(ids.filter((id) => this.links.get(id)).map((id) => this.nudge(id)));
    const nowMs = Date.now();
    for (const [id, { atMs }] of this.measured) if (nowMs - atMs >= IDLE_MS) this.measured.delete(id);
    for await (const devices of this.fleet.corrected(CORRECTION_TOLERANCE))
      for (const { id, tenantId, latencyCorrection } of devices) {
        if (!this.links.get(id) || this.measured.has(id)) continue;
        await this.fleet.setLatencyCorrection(id, relaxCorrection(latencyCorrection, SWEEP_MS, CORRECTION_HALF_LIFE_MS));
        await inTenant(tenantId, () => this.evaluate(id));
      }
  }

  private async evaluateUnassigned(): Promise<void> {
    await Promise.all((await this.fleet.unassigned()).map((id) => this.evaluate(id)));
  }

  private async inTurn<T>(deviceId: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.turns.get(deviceId) ?? Promise.resolve()).catch(() => {}).then(work);
    this.turns.set(deviceId, turn);
    try {
      return await turn;
    } finally {
      if (this.turns.get(deviceId) === turn) this.turns.delete(deviceId);
    }
  }
}

/** The context that a device reserves K/V for: small models serve short commands. */
function contextTokens({ manifest: { config } }: ModelVersion): number {
  return Math.min(config.maxPositionEmbeddings, config.hiddenSize < 512 ? SMALL_MODEL_CONTEXT_TOKENS : CONTEXT_TOKENS_MAX);
}
