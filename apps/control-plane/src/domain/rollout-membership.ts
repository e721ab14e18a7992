import { createHash } from 'node:crypto';
import type { WavePlan } from './rollout-plan.js';

/** Where a wave's devices end in the order: `members[wave]` are its devices. */
export interface Membership {
  readonly members: readonly (readonly string[])[];
}

/** A wave, and for a wave by filter the devices that it means. */
export interface WaveChoice {
  readonly plan: WavePlan;
  readonly matching: ReadonlySet<string> | null;
}

/** Devices in an order that only the seed and their ids decide, so that a rerun chooses the same ones. */
export function seededOrder(deviceIds: readonly string[], seed: number): string[] {
  const ranks = new Map(deviceIds.map((id) => [id, createHash('sha256').update(`${seed}:${id}`).digest('hex')]));
  return [...deviceIds].sort((a, b) => (ranks.get(a)! < ranks.get(b)! ? -1 : 1));
}

/**
 * Who is in which wave: wave after wave takes what it asks for from what is left. A percentage is of all devices, rounded up. What no wave
 * takes forms a last one, so that nobody is left out.
 */
export function chooseMembers(deviceIds: readonly string[], waves: readonly WaveChoice[], seed: number): Membership {
  let left = seededOrder([...new Set(deviceIds)], seed);
  const total = left.length;
  const members = waves.map(({ plan, matching }) => {
    const wanted = matching ? left.filter((id) => matching.has(id)) : left;
    const count = plan.count ?? (plan.percent === undefined ? wanted.length : Math.ceil((plan.percent * total) / 100 - 1e-9));
    const taken = new Set(wanted.slice(0, count));
    left = left.filter((id) => !taken.has(id));
    return [...taken];
  });
  return { members: left.length > 0 ? [...members, left] : members };
}
