import type { GateVerdict } from '../domain/rollout-gates.js';
import type { FailureClass, RolloutPlan } from '../domain/rollout-plan.js';
import type { Pace } from '../domain/rollout-rate.js';
import type { Hold, RolloutState, WaveSight, WaveState } from '../domain/rollout-sight.js';
import type { ChangeOver, Tally, TargetState } from '../domain/rollout-target.js';

/** A rollout as it is kept, with how many targets are in which state. */
export interface Rollout {
  readonly id: string;
  readonly name: string | null;
  readonly modelVersionId: string;
  readonly state: RolloutState;
  /** Why it is in its state. */
  readonly reason: string | null;
  readonly plan: RolloutPlan;
  readonly filter: string | null;
  readonly wholeFleet: boolean;
  readonly pace: Pace | null;
  /** How many devices of the running wave wait, by what for. */
  readonly holds: Readonly<Partial<Record<Hold['kind'], number>>>;
  /** Of all waves. */
  readonly tally: Tally;
  readonly waves: readonly RolloutWave[];
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
}

export interface RolloutWave {
  /** From 0. */
  readonly ordinal: number;
  readonly name: string | null;
  readonly state: WaveState;
  readonly reason: string | null;
  readonly tally: Tally;
  readonly openedAt: Date | null;
  readonly observedSince: Date | null;
  readonly endedAt: Date | null;
  readonly approvedAt: Date | null;
  readonly waived: WaveSight['waived'];
  readonly gates: readonly GateVerdict[];
}

export interface RolloutTarget {
  readonly rolloutId: string;
  readonly deviceId: string;
  readonly deviceName: string;
  readonly wave: number;
  readonly state: TargetState;
  readonly reason: string | null;
  readonly failure: FailureClass | null;
  readonly attempts: number;
  readonly generation: number | null;
  readonly changeOver: ChangeOver | null;
  readonly previousVersionId: string | null;
  readonly changedAt: Date;
}

export interface RolloutEvent {
  readonly at: Date;
  readonly wave: number | null;
  readonly state: string;
  readonly reason: string | null;
  readonly actor: string | null;
}
