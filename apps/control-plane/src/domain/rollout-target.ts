import type { FailureClass, RolloutPlan } from './rollout-plan.js';
import { formatDuration } from './units.js';

/**
 * How far one device of a rollout is. `fetching`, `fetched`: the bytes come, what runs stays. `pushed`: its document names the version; it has
 * not shown it yet. `skipped`: left out without blame. `reverting` to `revert-failed`: on its way back to the version before.
 */
export const TARGET_STATES = [
  'waiting',
  'fetching',
  'fetched',
  'pushed',
  'succeeded',
  'failed',
  'skipped',
  'reverting',
  'reverted',
  'revert-failed',
] as const;
export type TargetState = (typeof TARGET_STATES)[number];
export type Tally = Readonly<Record<TargetState, number>>;

export const emptyTally = (): Record<TargetState, number> =>
  Object.fromEntries(TARGET_STATES.map((state) => [state, 0])) as Record<TargetState, number>;

/** When a device may change over to a document's slice. `hold`: not at all, it only fetches. */
export type ChangeOver = 'at-once' | 'when-idle' | 'hold';

/** What the fleet knows of a target's device. */
export interface TargetSight {
  readonly deviceId: string;
  readonly state: TargetState;
  /** Documents that were sent for it so far. */
  readonly attempts: number;
  /** Since when it is in this state. */
  readonly sinceMs: number;
  /** Not begun again before; null when nothing has failed. */
  readonly retryAtMs: number | null;
  /** Of the label by which the rollout is spread; null without one. */
  readonly spreadBy: string | null;
  /** Whether the device has a lease. */
  readonly isHere: boolean;
  /** The device's maintenance window; null where the plan has none. */
  readonly window: { readonly isOpen: boolean; readonly changesAtMs: number } | null;
  /** Another rollout that has the device and goes first. */
  readonly heldBy: string | null;
  /** The generation that brings the version, or takes it back; null before the first. */
  readonly generation: number | null;
  /** Of that generation. */
  readonly changeOver: ChangeOver | null;
  /** What the device was to run before; null when nothing. */
  readonly previousVersionId: string | null;
  /** Newest desired document of the device. */
  readonly desired: { readonly generation: number; readonly modelVersionId: string } | null;
  readonly observed: { readonly generation: number; readonly modelVersionId: string } | null;
  /** Of the newest generation. */
  readonly phase: string | null;
  readonly phaseError: string | null;
  /** The class of that, where the device tells it. */
  readonly failure: FailureClass | null;
}

export type TargetMove =
  | { readonly kind: 'push'; readonly deviceId: string; readonly changeOver: ChangeOver }
  | {
      readonly kind: 'settle';
      readonly deviceId: string;
      readonly state: TargetState;
      readonly reason: string | null;
      readonly failure: FailureClass | null;
    }
  | { readonly kind: 'retry'; readonly deviceId: string; readonly atMs: number; readonly reason: string; readonly failure: FailureClass }
  | { readonly kind: 'revert'; readonly deviceId: string };

export interface Timeouts {
  /** For a device to come by, from the start of its wave. */
  readonly reachMs: number;
  /** From a document to what it asks for. */
  readonly doneMs: number;
}

const settle = (deviceId: string, state: TargetState, reason: string | null = null, failure: FailureClass | null = null): TargetMove => ({
  kind: 'settle',
  deviceId,
  state,
  reason,
  failure,
});

/** What a failure leads to: another try after a wait, or the end. */
export function onFailure(target: TargetSight, plan: RolloutPlan, failure: FailureClass, reason: string, nowMs: number): TargetMove {
  const retry = plan.retries[failure];
  if (!retry || target.attempts > retry.times) return settle(target.deviceId, 'failed', reason, failure);
  return { kind: 'retry', deviceId: target.deviceId, atMs: nowMs + retry.backoffMs * 2 ** Math.max(0, target.attempts - 1), reason, failure };
}

/**
 * What a device's own word, or its silence, makes of a target that is on its way; null while nothing. A device that runs the version at the
 * pushed generation, or at a later one, has succeeded: in between the assignment may have given it another slice of the same version.
 */
export function readTarget(target: TargetSight, modelVersionId: string, plan: RolloutPlan, timeouts: Timeouts, nowMs: number): TargetMove | null {
  const { deviceId, state, generation, observed, desired, phase } = target;
  if (generation === null) return state === 'fetching' || state === 'pushed' || state === 'reverting' ? overdue(target, plan, timeouts, nowMs) : null;
  const goal = state === 'reverting' ? target.previousVersionId : modelVersionId;
  if (state === 'reverting') {
    if (observed && observed.modelVersionId === goal && observed.generation >= generation) return settle(deviceId, 'reverted');
  } else {
    if (state !== 'fetching' && state !== 'fetched' && state !== 'pushed') return null;
    if (observed && observed.modelVersionId === goal && observed.generation >= generation) return settle(deviceId, 'succeeded');
  }
  if (desired && desired.generation > generation && desired.modelVersionId !== goal) {
    const reason = `generation ${desired.generation} took the device to version ${desired.modelVersionId.slice(0, 12)} instead`;
    return settle(deviceId, state === 'reverting' ? 'reverted' : 'skipped', reason);
  }
  if (phase === 'failed') {
    const failure = target.failure ?? 'device';
    const reason = target.phaseError ?? `generation ${desired?.generation ?? generation} failed on the device`;
    return state === 'reverting' ? settle(deviceId, 'revert-failed', reason, failure) : onFailure(target, plan, failure, reason, nowMs);
  }
  if (state === 'fetching' && phase === 'fetched')
    return plan.downloadOnly ? settle(deviceId, 'succeeded', 'its bytes are there') : settle(deviceId, 'fetched');
  return state === 'fetched' ? null : overdue(target, plan, timeouts, nowMs);
}

function overdue(target: TargetSight, plan: RolloutPlan, { doneMs }: Timeouts, nowMs: number): TargetMove | null {
  if (nowMs - target.sinceMs < doneMs) return null;
  const asked = target.state === 'fetching' ? 'fetched' : 'active';
  const what = target.generation === null ? 'its document could not be written' : `generation ${target.generation} was not ${asked}`;
  const reason = `${what} within ${formatDuration(doneMs)}`;
  return target.state === 'reverting'
    ? settle(target.deviceId, 'revert-failed', reason, 'timeout')
    : onFailure(target, plan, 'timeout', reason, nowMs);
}
