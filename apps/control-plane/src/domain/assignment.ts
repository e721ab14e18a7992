import type { Manifest } from '@matfleet/model';
import {
  better,
  bestOf,
  candidatesFor,
  corrected,
  describeLatency,
  fastestOf,
  higher,
  tied,
  type Candidate,
  type DeviceFacts,
  type MemoryLimit,
} from './candidates.js';
import { measuredCorrection } from './latency-correction.js';
import { formatBytes, formatDuration, formatMs, formatQuality } from './units.js';

/** Why a slice was chosen: drives how soon the next change may come. */
export type Cause = 'first' | 'update' | 'memory' | 'slow' | 'recovered' | 'kept' | 'none';

/** What keeps a device from moving back and forth. Stored with each assignment and handed to the next. */
export interface Steadiness {
  /** No move to a larger slice before this time, milliseconds since 1970. */
  readonly holdOffUntilMs: number;
  /** Moves to a larger slice that had to be taken back in a row; each doubles the hold-off. */
  readonly reverts: number;
  /** When the device last moved to a larger slice. */
  readonly raisedAtMs: number | null;
}

export interface Current {
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly steadiness: Steadiness;
}

/** The newest closed latency window of the current slice. */
export interface Measured {
  /** Mean inter-token latency of the window. */
  readonly interTokenMs: number;
  readonly tokens: number;
  /** Windows in a row, this one included, whose mean lay above the target; 0 when it met the target. */
  readonly slowWindows: number;
}

export interface Policy {
  /** Slow windows in a row after which a device moves to a smaller slice. */
  readonly slowWindows: number;
  /** Shortest stay after a change before a device moves to a larger slice. */
  readonly dwellMs: number;
  /** Part of the latency target that must be left over for a move to a larger slice, 0..1. */
  readonly upgradeMargin: number;
}

export const DEFAULT_POLICY: Policy = { slowWindows: 3, dwellMs: 10 * 60_000, upgradeMargin: 0.15 };
const MAX_HOLD_OFF_MS = 24 * 60 * 60_000;
/** Without any measurement only a prediction this far beyond the target counts as slow. */
const PREDICTED_SLOW_FACTOR = 1.15;
/** Extra room that a larger slice must have when the limit is available memory, which moves by itself. */
const MEMORY_HEADROOM = 1.1;

export interface AssignmentInput {
  readonly device: DeviceFacts;
  readonly modelVersionId: string;
  readonly manifest: Manifest;
  readonly contextTokens: number;
  readonly targetInterTokenMs: number;
  /** Learned ratio measured / predicted of this device. */
  readonly latencyCorrection: number;
  readonly current: Current | null;
  readonly measured: Measured | null;
  readonly nowMs: number;
  readonly policy: Policy;
}

export interface ExplainedCandidate extends Candidate {
  readonly chosen: boolean;
  /** In plain words, with the numbers: why it was chosen or why not. */
  readonly why: string;
}

export interface Explanation {
  readonly cause: Cause;
  readonly memoryLimitBytes: number;
  readonly memoryLimitFrom: MemoryLimit['from'];
  readonly contextTokens: number;
  readonly targetInterTokenMs: number;
  readonly latencyCorrection: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly measured: Measured | null;
  readonly steadiness: Steadiness;
  readonly candidates: readonly ExplainedCandidate[];
}

export interface AssignmentDecision {
  /** Null when nothing fits. */
  readonly sliceId: string | null;
  readonly reason: string;
  readonly explanation: Explanation;
}

interface Choice {
  readonly candidate: Candidate;
  readonly cause: Cause;
  readonly reason: string;
  readonly steadiness: Steadiness;
}

const STEADY: Steadiness = { holdOffUntilMs: 0, reverts: 0, raisedAtMs: null };

/**
 * Chooses the slice of a model version for a device: among the frontier slices that fit its memory and are predicted to meet the
 * inter-token target, the best measured quality; ties within two standard errors go to the smaller. A device that already runs a slice
 * leaves it downwards soon (memory at once, latency after a few slow windows) and upwards late (with margin, after a hold-off that
 * doubles each time the move had to be taken back).
 */
export function assign(given: AssignmentInput): AssignmentDecision {
  const { limit, candidates: learned } = candidatesFor({ ...given, heldSliceId: given.current?.sliceId ?? null });
  const input = { ...given, latencyCorrection: correctionNow(given, learned) };
  const candidates = corrected(learned, input.latencyCorrection, input.targetInterTokenMs);
  const fitting = candidates.filter((candidate) => candidate.fits);
  const current = candidates.find((candidate) => candidate.sliceId === input.current?.sliceId) ?? null;
  const choice = fitting.length === 0 ? null : current ? move(input, current, fitting, limit) : choose(input, fitting);
  const cause = choice ? (choice.cause === 'kept' && input.current?.modelVersionId !== input.modelVersionId ? 'update' : choice.cause) : 'none';
  return {
    sliceId: choice?.candidate.sliceId ?? null,
    reason: choice?.reason ?? nothingFits(candidates, limit),
    explanation: {
      cause,
      memoryLimitBytes: limit.bytes,
      memoryLimitFrom: limit.from,
      contextTokens: input.contextTokens,
      targetInterTokenMs: input.targetInterTokenMs,
      latencyCorrection: input.latencyCorrection,
      memoryBandwidthBytesPerSecond: input.device.memoryBandwidthBytesPerSecond,
      measured: input.measured,
      steadiness: choice?.steadiness ?? input.current?.steadiness ?? STEADY,
      candidates: candidates.map((candidate) => explain(candidate, choice, input)),
    },
  };
}

/**
 * The learned ratio follows slowly, so that one odd window moves nothing. Once the windows in a row say that a device is slow, the newest
 * of them counts in full: the device then goes down once, as far as it must, instead of by one slice at a time.
 */
function correctionNow({ measured, current, policy, latencyCorrection }: AssignmentInput, candidates: readonly Candidate[]): number {
  const held = candidates.find((candidate) => candidate.sliceId === current?.sliceId);
  if (!measured || !held || measured.slowWindows < policy.slowWindows) return latencyCorrection;
  return Math.max(latencyCorrection, measuredCorrection({ measuredMs: measured.interTokenMs, predictedMs: held.uncorrectedInterTokenMs }));
}

/** For a device that runs none of these slices yet. */
function choose(input: AssignmentInput, fitting: readonly Candidate[]): Choice {
  const { candidate, fast } = ideal(fitting);
  const cause = input.current && input.current.modelVersionId !== input.modelVersionId ? 'update' : 'first';
  return { candidate, cause, reason: idealReason(candidate, fast, fitting, input), steadiness: input.current?.steadiness ?? STEADY };
}

/** For a device that runs `current`: stay, or which way to leave it. */
function move(input: AssignmentInput, current: Candidate, fitting: readonly Candidate[], limit: MemoryLimit): Choice {
  const steadiness = input.current!.steadiness;
  const target = formatMs(input.targetInterTokenMs);
  if (!current.fits) {
    const { candidate, fast } = ideal(fitting);
    const reason = `${current.name} no longer fits: ${current.misfit}. ${idealReason(candidate, fast, fitting, input)}`;
    return { candidate, cause: 'memory', reason, steadiness: lowered(steadiness, input) };
  }
  if (isSlow(current, input)) {
    const { candidate } = ideal(fitting);
    if (candidate.predictedInterTokenMs < current.predictedInterTokenMs) {
      const after = lowered(steadiness, input);
      const reason = `${slowReason(current, input)}; ${candidate.name} is predicted at ${formatMs(candidate.predictedInterTokenMs)}${candidate.meetsLatency ? '' : `, over the target of ${target} but the fastest that fits`}. No larger slice for ${formatDuration(after.holdOffUntilMs - input.nowMs)}.`;
      return { candidate, cause: 'slow', reason, steadiness: after };
    }
    if (!current.meetsLatency)
      return kept(
        current,
        steadiness,
        `${slowReason(current, input)}, but no fitting slice is predicted to be faster than ${formatMs(current.predictedInterTokenMs)}.`,
      );
    return kept(current, steadiness, `${slowReason(current, input)}, but its prediction still meets the target: waiting for another window.`);
  }
  const roomy = fitting.filter(
    (candidate) =>
      candidate.predictedInterTokenMs <= input.targetInterTokenMs * (1 - input.policy.upgradeMargin) &&
      (limit.from === 'grant' || candidate.totalBytes * MEMORY_HEADROOM <= limit.bytes),
  );
  // A move needs a slice that is measurably better, and then goes where a fresh device would: the way back ends where it began.
  const goal = roomy.some((candidate) => better(candidate, current)) ? bestOf(roomy.filter((candidate) => higher(candidate, current))) : null;
  if (!goal) return kept(current, steadiness, `Keeps ${current.name}: ${keptReason(current, fitting, input)}.`);
  if (input.measured && input.measured.slowWindows > 0)
    return kept(
      current,
      steadiness,
      `Keeps ${current.name} (${formatQuality(current.quality)}): its last window was slow, ${formatMs(input.measured.interTokenMs)} per token against ${target}.`,
    );
  if (input.nowMs < steadiness.holdOffUntilMs)
    return kept(
      current,
      steadiness,
      `Keeps ${current.name} (${formatQuality(current.quality)}): ${goal.name} (${formatQuality(goal.quality)}, ${formatMs(goal.predictedInterTokenMs)} predicted) may follow in ${formatDuration(steadiness.holdOffUntilMs - input.nowMs)}${steadiness.reverts > 0 ? `, held off after ${steadiness.reverts} reverted moves` : ''}.`,
    );
  const reason = `${goal.name} (${formatQuality(goal.quality)} instead of ${formatQuality(current.quality)}) fits in ${formatBytes(goal.totalBytes)} of ${formatBytes(limit.bytes)} and is predicted at ${formatMs(goal.predictedInterTokenMs)} per token, at least ${Math.round(input.policy.upgradeMargin * 100)} % under the target of ${target}${measuredWords(input.measured, current)}.`;
  return {
    candidate: goal,
    cause: 'recovered',
    reason,
    steadiness: { holdOffUntilMs: input.nowMs + input.policy.dwellMs, reverts: steadiness.reverts, raisedAtMs: input.nowMs },
  };
}

/** The slice that a fresh device would get: best that is fast enough, else the fastest. */
function ideal(fitting: readonly Candidate[]): { candidate: Candidate; fast: boolean } {
  const best = bestOf(fitting.filter((candidate) => candidate.meetsLatency));
  return best ? { candidate: best, fast: true } : { candidate: fastestOf(fitting)!, fast: false };
}

function isSlow(current: Candidate, input: AssignmentInput): boolean {
  if (input.measured) return input.measured.slowWindows >= input.policy.slowWindows;
  return current.predictedInterTokenMs > PREDICTED_SLOW_FACTOR * input.targetInterTokenMs;
}

/**
 * After a move to a smaller slice. A move up that did not last counts as reverted. What was learned that way is forgotten only after a
 * calm time: several steps down in a row are one story.
 */
function lowered(before: Steadiness, { nowMs, policy }: AssignmentInput): Steadiness {
  const calmMs = 4 * holdOffMs(before.reverts, policy);
  const reverted = before.raisedAtMs !== null && nowMs - before.raisedAtMs < calmMs;
  const reverts = reverted ? before.reverts + 1 : nowMs - before.holdOffUntilMs < calmMs ? before.reverts : 0;
  return { holdOffUntilMs: nowMs + holdOffMs(reverts, policy), reverts, raisedAtMs: null };
}

const holdOffMs = (reverts: number, policy: Policy): number =>
  Math.min(Math.max(MAX_HOLD_OFF_MS, policy.dwellMs), policy.dwellMs * 2 ** Math.min(reverts, 30));

const kept = (candidate: Candidate, steadiness: Steadiness, reason: string): Choice => ({ candidate, cause: 'kept', reason, steadiness });

function slowReason(current: Candidate, input: AssignmentInput): string {
  const { measured, targetInterTokenMs } = input;
  return measured
    ? `${current.name} took ${formatMs(measured.interTokenMs)} per token in ${measured.slowWindows} windows in a row, target ${formatMs(targetInterTokenMs)} (${input.latencyCorrection.toFixed(2)} times its prediction)`
    : `${current.name} is predicted at ${formatMs(current.predictedInterTokenMs)} per token, target ${formatMs(targetInterTokenMs)}`;
}

const measuredWords = (measured: Measured | null, current: Candidate): string =>
  measured ? `; ${current.name} measured ${formatMs(measured.interTokenMs)} over ${measured.tokens} tokens` : '';

function idealReason(candidate: Candidate, fast: boolean, fitting: readonly Candidate[], input: AssignmentInput): string {
  const size = formatBytes(candidate.totalBytes);
  if (!fast)
    return `No fitting slice is predicted to meet ${formatMs(input.targetInterTokenMs)} per token; ${candidate.name} (${formatQuality(candidate.quality)}, ${size}) is the fastest at ${formatMs(candidate.predictedInterTokenMs)}.`;
  const rival = fitting.find(
    (other) =>
      other !== candidate &&
      other.meetsLatency &&
      tied(other, candidate) &&
      other.totalBytes > candidate.totalBytes &&
      (other.quality ?? 0) > (candidate.quality ?? 0),
  );
  const tie = rival
    ? `; ${rival.name} (${formatQuality(rival.quality)}) is not measurably better and ${formatBytes(rival.totalBytes - candidate.totalBytes)} larger`
    : '';
  return `${candidate.name} (${formatQuality(candidate.quality)}) is the best slice that fits: ${size}, ${describeLatency(candidate, input.targetInterTokenMs)}${tie}.`;
}

function keptReason(current: Candidate, fitting: readonly Candidate[], input: AssignmentInput): string {
  const larger = fitting.filter((candidate) => better(candidate, current));
  if (larger.length === 0)
    return `no slice that fits is measurably better than its ${formatQuality(current.quality)} in ${formatBytes(current.totalBytes)}`;
  const next = bestOf(larger)!;
  return `${next.name} (${formatQuality(next.quality)}) would be better, but is predicted at ${formatMs(next.predictedInterTokenMs)} per token, and a move up needs at most ${formatMs(input.targetInterTokenMs * (1 - input.policy.upgradeMargin))}`;
}

function explain(candidate: Candidate, choice: Choice | null, input: AssignmentInput): ExplainedCandidate {
  const chosen = choice?.candidate.sliceId === candidate.sliceId;
  return { ...candidate, chosen, why: chosen ? choice!.reason : whyNot(candidate, choice, input) };
}

function whyNot(candidate: Candidate, choice: Choice | null, input: AssignmentInput): string {
  if (candidate.misfit) return candidate.misfit;
  if (!candidate.meetsLatency) return describeLatency(candidate, input.targetInterTokenMs);
  if (!choice) return 'nothing was chosen';
  const other = choice.candidate;
  if (tied(candidate, other))
    return `${formatQuality(candidate.quality)} is within two standard errors of ${formatQuality(other.quality)} of ${other.name}, which is ${candidate.totalBytes > other.totalBytes ? 'smaller' : 'in use'}`;
  if (better(other, candidate)) return `${formatQuality(candidate.quality)} is below ${formatQuality(other.quality)} of ${other.name}`;
  return `better at ${formatQuality(candidate.quality)}, but the device stays on ${other.name} for now`;
}

function nothingFits(candidates: readonly Candidate[], limit: MemoryLimit): string {
  const smallest = candidates[0];
  return smallest
    ? `No slice fits: the smallest, ${smallest.name}, ${smallest.misfit}${limit.from === 'grant' ? '; raise the memory grant' : ''}.`
    : 'The model version has no slices.';
}
