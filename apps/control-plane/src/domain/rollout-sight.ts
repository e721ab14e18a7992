import type { GateEvidence, GateVerdict } from './rollout-gates.js';
import type { RolloutPlan, WavePlan } from './rollout-plan.js';
import type { Pace } from './rollout-rate.js';
import type { Tally, TargetMove, Timeouts } from './rollout-target.js';

export const ROLLOUT_STATES = ['awaiting-approval', 'running', 'paused', 'rolling-back', 'succeeded', 'aborted', 'rolled-back'] as const;
export type RolloutState = (typeof ROLLOUT_STATES)[number];
export const isEnded = (state: RolloutState): boolean => state === 'succeeded' || state === 'aborted' || state === 'rolled-back';

/** `observing`: all its devices have ended, the gates are not judged yet. */
export const WAVE_STATES = ['pending', 'awaiting-approval', 'running', 'observing', 'succeeded', 'failed'] as const;
export type WaveState = (typeof WAVE_STATES)[number];

export interface WaveSight {
  readonly plan: WavePlan;
  readonly state: WaveState;
  readonly tally: Tally;
  readonly openedAtMs: number | null;
  /** When the last of its devices ended. */
  readonly observedSinceMs: number | null;
  readonly isApproved: boolean;
  /** Of its devices that were changed, those without a lease. */
  readonly gone: number;
  /** What an operator who resumed has seen and let pass. */
  readonly waived: { readonly failed: number; readonly gone: number; readonly outcome: boolean };
}

export interface RolloutSight {
  readonly modelVersionId: string;
  readonly state: RolloutState;
  readonly plan: RolloutPlan;
  readonly timeouts: Timeouts;
  readonly waves: readonly WaveSight[];
  readonly pace: Pace | null;
  /** Why it is in its state. */
  readonly reason: string | null;
  /** Of the wave that is being observed; null where its time has not come. */
  readonly evidence: GateEvidence | null;
}

export interface WaveChange {
  readonly wave: number;
  readonly state: WaveState;
  readonly reason: string | null;
  readonly gates?: readonly GateVerdict[];
}

/** Everything that is to be done now. Doing it twice is as good as once. */
export interface RolloutStep {
  readonly moves: readonly TargetMove[];
  readonly waves: readonly WaveChange[];
  readonly state: { readonly to: RolloutState; readonly reason: string } | null;
  readonly pace: Pace | null;
  /** Why devices of the wave have not begun. */
  readonly holds: readonly Hold[];
  /** When to look again although nothing was heard; null: no need. */
  readonly wakeAtMs: number | null;
}

export const HOLD_KINDS = ['away', 'retry', 'window', 'spread', 'rate', 'other-rollout'] as const;

/** Why a device of the running wave has not begun, or not changed over. */
export interface Hold {
  readonly deviceId: string;
  readonly kind: (typeof HOLD_KINDS)[number];
  readonly reason: string;
}

export const nameOf = ({ plan }: Pick<WaveSight, 'plan'>, at: number): string =>
  plan.name === undefined ? `wave ${at + 1}` : `wave ${at + 1} (${plan.name})`;
