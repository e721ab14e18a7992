import type { TargetState, Update } from './api-types.js';

export interface Share {
  readonly state: TargetState;
  readonly count: number;
  /** 0..100 of all targets. */
  readonly percent: number;
}

const order: readonly TargetState[] = ['succeeded', 'pushed', 'pending', 'failed'];

/** How many targets stand in each state, in the order a bar shows them; states without targets are left out. */
export function shares(update: Update): readonly Share[] {
  return order
    .map((state) => ({ state, count: update.targets.filter((target) => target.state === state).length }))
    .filter(({ count }) => count > 0)
    .map(({ state, count }) => ({ state, count, percent: (count / update.targets.length) * 100 }));
}

/** The update to show: the newest that still runs, else the newest. */
export function currentUpdate(updates: readonly Update[]): Update | undefined {
  const newestFirst = [...updates].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  return newestFirst.find((update) => update.state === 'running') ?? newestFirst[0];
}
