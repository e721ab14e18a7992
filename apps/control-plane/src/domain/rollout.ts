import { beginTargets } from './rollout-begin.js';
import { judgeGates, type GateVerdict } from './rollout-gates.js';
import { instantMs, type Reaction, type RolloutPlan } from './rollout-plan.js';
import { isEnded, nameOf, type RolloutSight, type RolloutStep, type WaveChange, type WaveSight } from './rollout-sight.js';
import { readTarget, type Tally, type TargetMove, type TargetSight, type TargetState } from './rollout-target.js';
import { tooFewSucceeded, tooManyFailures, type WaveCount } from './rollout-threshold.js';

const LOOK_AGAIN_MS = 5_000;

/**
 * The one next step of a rollout. `targets`: of a running or paused one those of the current wave that have not ended; of one that rolls back
 * all that have a document of it or are on their way back. What devices have shown is read first; then whether to stop; then whom to begin.
 */
export function nextStep(rollout: RolloutSight, targets: readonly TargetSight[], nowMs: number): RolloutStep {
  const quiet: RolloutStep = { moves: [], waves: [], state: null, pace: rollout.pace, holds: [], wakeAtMs: null };
  if (isEnded(rollout.state) || rollout.state === 'awaiting-approval') return quiet;
  if (rollout.state === 'rolling-back') return rollBack(rollout, targets, quiet, nowMs);

  const moves = targets.flatMap((target) => readTarget(target, rollout.modelVersionId, rollout.plan, rollout.timeouts, nowMs) ?? []);
  const read = { ...quiet, moves, wakeAtMs: nowMs + LOOK_AGAIN_MS };
  if (rollout.state === 'paused') return read;
  const at = rollout.waves.findIndex(({ state }) => state !== 'succeeded');
  const wave = rollout.waves[at];
  if (!wave) return { ...read, state: { to: 'succeeded', reason: succeededReason(rollout) } };

  const tally = afterMoves(wave.tally, targets, moves);
  const stop = whyStop(rollout.plan, wave, tally);
  if (stop) return react(read, at, stop.then, stop.reason, wave);

  switch (wave.state) {
    case 'pending':
    case 'awaiting-approval':
      return openWave(read, wave, at, nowMs);
    case 'running': {
      if (openCount(tally) === 0 && !staysOpen(rollout, at, nowMs))
        return { ...read, waves: [{ wave: at, state: 'observing', reason: null }], wakeAtMs: nowMs };
      const begun = beginTargets(rollout, wave, targets, moves, nowMs);
      return { ...read, ...begun, wakeAtMs: Math.min(read.wakeAtMs, begun.wakeAtMs ?? Infinity) };
    }
    case 'observing':
      return concludeWave(rollout, read, wave, at, tally, nowMs);
    case 'failed':
    case 'succeeded':
      return read;
  }
}

const COUNTED: readonly TargetState[] = ['waiting', 'fetching', 'fetched', 'pushed', 'succeeded', 'failed'];
export const countOf = (tally: Tally): WaveCount => ({
  size: COUNTED.reduce((sum, state) => sum + tally[state], 0),
  succeeded: tally.succeeded,
  failed: tally.failed,
});
export const openCount = (tally: Tally): number => tally.waiting + tally.fetching + tally.fetched + tally.pushed;

/** What the tally is once the moves are made. */
function afterMoves(tally: Tally, targets: readonly TargetSight[], moves: readonly TargetMove[]): Tally {
  const from = new Map(targets.map(({ deviceId, state }) => [deviceId, state]));
  const after = { ...tally };
  for (const move of moves) {
    const to = move.kind === 'settle' ? move.state : move.kind === 'retry' ? 'waiting' : null;
    if (!to) continue;
    after[from.get(move.deviceId)!] -= 1;
    after[to] += 1;
  }
  return after;
}

function whyStop(plan: RolloutPlan, wave: WaveSight, tally: Tally): { then: Reaction; reason: string } | null {
  const { failed, ...count } = countOf(tally);
  const failures = tooManyFailures({ ...count, failed: failed - wave.waived.failed }, plan.error.percent, plan.error.minSample);
  if (failures) return { then: plan.error.then, reason: failures };
  const changed = tally.pushed + tally.succeeded;
  const gone = wave.gone - wave.waived.gone;
  if (gone >= plan.brake.minDevices && gone * 100 >= plan.brake.percent * changed)
    return { then: 'pause', reason: `brake: ${gone} of the ${changed} devices that this wave has changed are gone` };
  return null;
}

function react(step: RolloutStep, at: number, reaction: Reaction, reason: string, wave: WaveSight, gates?: readonly GateVerdict[]): RolloutStep {
  const why = `${nameOf(wave, at)}: ${reason}`;
  if (reaction === 'pause')
    return { ...step, state: { to: 'paused', reason: why }, ...(gates && { waves: [{ wave: at, state: wave.state, reason, gates }] }) };
  const waves: WaveChange[] = [{ wave: at, state: 'failed', reason, ...(gates && { gates }) }];
  return { ...step, waves, state: { to: reaction === 'abort' ? 'aborted' : 'rolling-back', reason: why }, wakeAtMs: null };
}

function openWave(step: RolloutStep, wave: WaveSight, at: number, nowMs: number): RolloutStep {
  const notBeforeMs = wave.plan.notBefore === undefined ? 0 : instantMs(wave.plan.notBefore);
  if (nowMs < notBeforeMs) return { ...step, wakeAtMs: notBeforeMs };
  if (wave.plan.approval && !wave.isApproved) {
    if (wave.state === 'awaiting-approval') return { ...step, wakeAtMs: null };
    return { ...step, waves: [{ wave: at, state: 'awaiting-approval', reason: 'waits for somebody to approve it' }] };
  }
  return { ...step, waves: [{ wave: at, state: 'running', reason: null }], wakeAtMs: nowMs };
}

function concludeWave(rollout: RolloutSight, step: RolloutStep, wave: WaveSight, at: number, tally: Tally, nowMs: number): RolloutStep {
  const { plan } = rollout;
  const until = (wave.observedSinceMs ?? nowMs) + wave.plan.observeMs;
  if (nowMs < until) return { ...step, wakeAtMs: until };
  const count = countOf(tally);
  const passed: WaveChange = { wave: at, state: 'succeeded', reason: `${count.succeeded} of ${count.size} devices run it` };
  if (wave.waived.outcome) return { ...step, waves: [{ ...passed, reason: `${passed.reason}; let pass by an operator` }], wakeAtMs: nowMs };
  const few = tooFewSucceeded(count, plan.success.percent);
  if (few) return react(step, at, 'pause', few, wave);
  const gates = rollout.evidence && count.size > 0 ? judgeGates(plan.gates, rollout.evidence) : [];
  const failed = gates.find(({ verdict }) => verdict === 'failed');
  if (failed) return react(step, at, plan.gates.then, `gate ${failed.gate}: ${failed.reason}`, wave, gates);
  const unknown = plan.gates.unknown === 'pause' ? gates.find(({ verdict }) => verdict === 'unknown') : undefined;
  if (unknown) return react(step, at, 'pause', `gate ${unknown.gate} cannot be judged: ${unknown.reason}`, wave, gates);
  return { ...step, waves: [{ ...passed, gates }], wakeAtMs: nowMs };
}

/** The last wave of a dynamic rollout takes whoever comes until its time is over. */
function staysOpen({ plan, waves }: RolloutSight, at: number, nowMs: number): boolean {
  return at === waves.length - 1 && plan.membership.until !== undefined && nowMs < instantMs(plan.membership.until);
}

function rollBack(rollout: RolloutSight, targets: readonly TargetSight[], step: RolloutStep, nowMs: number): RolloutStep {
  const moves = targets.map((target): TargetMove | null => {
    if (target.state === 'reverting' && target.generation !== null)
      return readTarget(target, rollout.modelVersionId, rollout.plan, rollout.timeouts, nowMs);
    return { kind: 'revert', deviceId: target.deviceId };
  });
  const made = moves.filter((move) => move !== null);
  const left = targets.length - made.filter(({ kind }) => kind === 'settle').length;
  if (left > 0) return { ...step, moves: made, wakeAtMs: nowMs + LOOK_AGAIN_MS };
  return { ...step, moves: made, state: { to: 'rolled-back', reason: rollout.reason ?? 'its devices were sent back to the version before' } };
}

function succeededReason({ waves }: RolloutSight): string {
  const count = waves
    .map(({ tally }) => countOf(tally))
    .reduce((a, b) => ({ size: a.size + b.size, succeeded: a.succeeded + b.succeeded, failed: a.failed + b.failed }), {
      size: 0,
      succeeded: 0,
      failed: 0,
    });
  return `${count.succeeded} of ${count.size} devices run it${count.failed > 0 ? `, ${count.failed} failed` : ''}`;
}
