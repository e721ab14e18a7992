import { Inject, Injectable, Logger } from '@nestjs/common';
import { AssignmentService } from '../assignment/assignment.service.js';
import { CONFIG, type Config } from '../config.js';
import { Fenced, type Fence } from '../database/fence.js';
import { nextStep } from '../domain/rollout.js';
import { isEnded, type RolloutSight, type RolloutStep } from '../domain/rollout-sight.js';
import type { TargetMove, TargetSight } from '../domain/rollout-target.js';
import { onFailure } from '../domain/rollout-target.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Elsewhere } from '../fleet/elsewhere.js';
import { Metrics } from '../telemetry.js';
import { Timeline } from '../timeline/timeline.service.js';
import { GateEvidenceRepository } from './gate-evidence.repository.js';
import { MaintenanceWindows } from './maintenance-window.js';
import type { Rollout } from './rollout.js';
import { Changed, RolloutRepository } from './rollout.repository.js';
import { RolloutTargetRepository, type TargetRow } from './rollout-target.repository.js';

/** Documents that are written at the same time. */
const WRITES_MAX = 500;
/** A rollout with devices on its way is looked at so often, and less often the longer one look takes. */
const LOOK_MS = 500;
const LOOK_SHARE = 10;
/** Steps in one go: a wave that ends opens the next one at once. */
const STEPS_MAX = 20;

/** Takes a rollout as many steps further as it can go now: load, decide, write, send. */
@Injectable()
export class RolloutRunner {
  private readonly log = new Logger('rollout');

  constructor(
    private readonly rollouts: RolloutRepository,
    private readonly targets: RolloutTargetRepository,
    private readonly evidence: GateEvidenceRepository,
    private readonly assignment: AssignmentService,
    private readonly elsewhere: Elsewhere,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
    private readonly timeline: Timeline,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Safe to repeat. Writes nothing when another replica leads by now. */
  async advance(rolloutId: string, fence: Fence, signal: AbortSignal): Promise<void> {
    for (let steps = 0; steps < STEPS_MAX; steps += 1) {
      signal.throwIfAborted();
      const rollout = await this.rollouts.find(rolloutId);
      if (!rollout || isEnded(rollout.state) || rollout.state === 'awaiting-approval') return;
      try {
        if (!(await this.take(rollout, fence, signal))) return;
      } catch (error) {
        if (error instanceof Fenced) return this.log.warn(error.message);
        // An operator was faster: once more, with what is true now.
        if (!(error instanceof Changed)) throw error;
      }
    }
  }

  /** What would be done now, and why devices wait. Changes nothing. */
  async foresee(rollout: Rollout): Promise<RolloutStep> {
    const { sight, targets } = await this.look(rollout);
    return nextStep(sight, targets, Date.now());
  }

  /** One step; true when the next one may follow at once. */
  private async take(rollout: Rollout, fence: Fence, signal: AbortSignal): Promise<boolean> {
    const startedMs = performance.now();
    const { sight, targets } = await this.look(rollout);
    const nowMs = Date.now();
    const step = nextStep(sight, targets, nowMs);
    const again = step.state !== null || step.waves.length > 0;
    const wakeAt = again ? null : this.wakeAt(step, targets, nowMs, performance.now() - startedMs);
    await this.rollouts.whileIn(rollout.id, rollout.state, fence, async (tx) => {
      await this.targets.apply(rollout, step.moves, tx);
      if (step.state?.to === 'aborted' || step.state?.to === 'rolling-back')
        await this.targets.skipOpen(rollout.id, step.state.to === 'aborted', `the rollout stopped: ${step.state.reason}`, tx);
      await this.rollouts.applyStep(rollout, step, wakeAt, tx);
    });
    this.told(rollout, step);
    await this.send(rollout, step.moves, new Map(targets.map((target) => [target.deviceId, target])), fence, signal);
    if (step.moves.length > 0 || again) this.events.emit({ kind: 'rollout-changed', rolloutId: rollout.id });
    return again;
  }

  private async look(rollout: Rollout): Promise<{ sight: RolloutSight; targets: TargetSight[] }> {
    const at = rollout.waves.findIndex(({ state }) => state !== 'succeeded');
    const wave = rollout.waves[at];
    const rows = rollout.state === 'rolling-back' ? await this.targets.toRevert(rollout) : wave ? await this.targets.open(rollout, at) : [];
    const present = await this.elsewhere.present();
    const here = new Set([...present.online, ...present.suspect]);
    const gone = wave && wave.state === 'running' ? (await this.targets.changedIds(rollout.id, at)).filter((id) => !here.has(id)).length : 0;
    const judged = wave?.state === 'observing' && rollout.state === 'running' ? await this.evidence.read(rollout, wave) : null;
    const { plan } = rollout;
    const windows = plan.window && new MaintenanceWindows(plan.window, Date.now());
    return {
      sight: {
        ...{ modelVersionId: rollout.modelVersionId, state: rollout.state, reason: rollout.reason, plan, pace: rollout.pace },
        timeouts: { reachMs: plan.timeouts.reachMs ?? this.config.rolloutDeadlineMs, doneMs: plan.timeouts.doneMs ?? this.config.rolloutDeadlineMs },
        waves: rollout.waves.map((one, ordinal) => ({
          ...{ plan: plan.waves[ordinal]!, state: one.state, tally: one.tally, waived: one.waived, isApproved: one.approvedAt !== null },
          ...{ openedAtMs: one.openedAt?.getTime() ?? null, observedSinceMs: one.observedSince?.getTime() ?? null, gone: ordinal === at ? gone : 0 },
        })),
        evidence: judged,
      },
      targets: rows.map(({ timeZone, ...row }) => ({ ...row, isHere: here.has(row.deviceId), window: windows?.at(timeZone) ?? null })),
    };
  }

  private wakeAt({ moves, wakeAtMs }: RolloutStep, targets: readonly TargetSight[], nowMs: number, tookMs: number): Date | null {
    const underWay = moves.length > 0 || targets.some(({ state }) => state === 'fetching' || state === 'pushed' || state === 'reverting');
    const look = nowMs + (underWay ? Math.max(LOOK_MS, LOOK_SHARE * tookMs) : 5_000);
    return new Date(Math.min(look, Math.max(wakeAtMs ?? Infinity, nowMs)));
  }

  /** Writes the documents of what was taken. What is cut short here is found by the next look: its target has no generation yet. */
  private async send(
    rollout: Rollout,
    moves: readonly TargetMove[],
    targets: ReadonlyMap<string, TargetRow | TargetSight>,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<void> {
    const begun = moves.filter((move) => move.kind === 'push' || move.kind === 'revert');
    for (let from = 0; from < begun.length; from += WRITES_MAX) {
      signal.throwIfAborted();
      const part = begun.slice(from, from + WRITES_MAX);
      const before = await this.targets.previousVersions(
        rollout.id,
        part.map(({ deviceId }) => deviceId),
      );
      const failures = await Promise.all(
        part.map((move) => this.sendOne(rollout, move, before.get(move.deviceId), targets.get(move.deviceId) as TargetSight)),
      );
      const settled = failures.filter((move) => move !== null);
      if (settled.length > 0) await this.rollouts.whileIn(rollout.id, rollout.state, fence, (tx) => this.targets.apply(rollout, settled, tx));
    }
  }

  private async sendOne(
    rollout: Rollout,
    move: Extract<TargetMove, { kind: 'push' | 'revert' }>,
    previousVersionId: string | undefined,
    target: TargetSight,
  ): Promise<TargetMove | null> {
    const { deviceId } = move;
    const end = (state: 'reverted' | 'revert-failed', reason: string): TargetMove => ({ kind: 'settle', deviceId, state, reason, failure: null });
    if (move.kind === 'revert') {
      if (previousVersionId === undefined) return end('reverted', 'it ran nothing before');
      // What took the device elsewhere meanwhile is not undone.
      if (target.desired && target.desired.modelVersionId !== rollout.modelVersionId && target.state !== 'reverting')
        return end('reverted', `runs what generation ${target.desired.generation} brought`);
    }
    try {
      const { generation } = await this.assignment.assignVersion(deviceId, move.kind === 'push' ? rollout.modelVersionId : previousVersionId!, {
        rolloutId: rollout.id,
        changeOver: move.kind === 'push' ? move.changeOver : 'at-once',
      });
      await this.targets.setGeneration(rollout.id, deviceId, generation);
      return null;
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      // A device that has not spoken yet keeps its place; the next look asks again.
      if (error.code === 'unavailable') return null;
      if (move.kind === 'revert') return end('revert-failed', error.message);
      return onFailure({ ...target, attempts: target.attempts + 1 }, rollout.plan, 'unfit', error.message, Date.now());
    }
  }

  private told(rollout: Rollout, step: RolloutStep): void {
    for (const move of step.moves)
      if (move.kind === 'settle') {
        this.metrics.rolloutTargets.inc({ outcome: move.state });
        this.log.log({ rolloutId: rollout.id, deviceId: move.deviceId, state: move.state, reason: move.reason, msg: 'rollout target ended' });
        this.timeline.note(move.deviceId, 'rollout', { rolloutId: rollout.name ?? rollout.id, state: move.state, reason: move.reason });
      }
    for (const { wave, state, reason } of step.waves) this.log.log({ rolloutId: rollout.id, wave, state, reason, msg: 'rollout wave' });
    if (step.state) this.log.log({ rolloutId: rollout.id, state: step.state.to, reason: step.state.reason, msg: 'rollout' });
  }
}
