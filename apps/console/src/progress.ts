import type { Counts, Rollout, TargetState } from './api-types.js';

export type Stage = 'done' | 'under way' | 'waiting' | 'failed' | 'taken back' | 'left out';

export interface Share {
  readonly stage: Stage;
  readonly count: number;
  /** 0..100 of all devices. */
  readonly percent: number;
}

const STAGES: Readonly<Record<TargetState, Stage>> = {
  succeeded: 'done',
  fetching: 'under way',
  fetched: 'under way',
  pushed: 'under way',
  reverting: 'under way',
  waiting: 'waiting',
  failed: 'failed',
  'revert-failed': 'failed',
  reverted: 'taken back',
  skipped: 'left out',
};
const order: readonly Stage[] = ['done', 'under way', 'waiting', 'failed', 'taken back', 'left out'];

/** How many devices stand where, in the order a bar shows them; stages without devices are left out. */
export function shares(counts: Counts): readonly Share[] {
  const total = counts.reduce((sum, { devices }) => sum + devices, 0);
  return order
    .map((stage) => ({ stage, count: counts.filter(({ state }) => STAGES[state] === stage).reduce((sum, { devices }) => sum + devices, 0) }))
    .filter(({ count }) => count > 0)
    .map(({ stage, count }) => ({ stage, count, percent: (count / total) * 100 }));
}

export const isEnded = ({ state }: Rollout): boolean => state === 'succeeded' || state === 'aborted' || state === 'rolled-back';

/** The rollout to show: the newest that has not ended, else the newest. */
export function currentRollout(rollouts: readonly Rollout[]): Rollout | undefined {
  const newestFirst = [...rollouts].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  return newestFirst.find((rollout) => !isEnded(rollout)) ?? newestFirst[0];
}

/** What an operator can do with it now. */
export function commandsFor(rollout: Rollout): readonly ('pause' | 'resume' | 'approve' | 'abort')[] {
  if (isEnded(rollout) || rollout.state === 'rolling-back') return [];
  const waits = rollout.state === 'awaiting-approval' || rollout.waves.some(({ state }) => state === 'awaiting-approval');
  return [
    ...(waits ? (['approve'] as const) : []),
    ...(rollout.state === 'running' ? (['pause'] as const) : []),
    ...(rollout.state === 'paused' ? (['resume'] as const) : []),
    'abort',
  ];
}
