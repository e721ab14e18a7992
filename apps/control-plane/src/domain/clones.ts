/**
 * Whether one identity is used by two machines at once. An agent takes a new boot id at each start, so after a restart the old one is gone for
 * good; a boot id that says Hello again after another one had taken over belongs to a process that never ended. A late message of a process
 * that has just ended can look like that once or twice; a copied disk looks like it again and again, because each takes the session from the other.
 */
export interface BootHistory {
  /** Holds the session. */
  readonly current: string;
  /** Taken over from, newest last; at most SUPERSEDED_MAX. */
  readonly superseded: readonly string[];
  /** When a superseded boot id took the session back, milliseconds; only those within the window. */
  readonly returnsMs: readonly number[];
}

export interface BootVerdict {
  readonly history: BootHistory;
  /** Set when this is no restart any more. */
  readonly clone: string | null;
}

/** Returns within the window from which on it is a clone: one more than a restart with a late Hello can cause. */
export const CLONE_RETURNS = 3;
const SUPERSEDED_MAX = 16;

/** Pure: what a Hello with `bootId` does to the history. `windowMs` is how long a return counts. */
export function judgeBoot(before: BootHistory | null, bootId: string, nowMs: number, windowMs: number): BootVerdict {
  if (!before) return { history: { current: bootId, superseded: [], returnsMs: [] }, clone: null };
  if (before.current === bootId) return { history: before, clone: null };
  const isReturn = before.superseded.includes(bootId);
  const recent = before.returnsMs.filter((at) => nowMs - at < windowMs);
  const returnsMs = (isReturn ? [...recent, nowMs] : recent).slice(-CLONE_RETURNS);
  const superseded = [...before.superseded.filter((id) => id !== bootId), before.current].slice(-SUPERSEDED_MAX);
  return {
    history: { current: bootId, superseded, returnsMs },
    clone:
      returnsMs.length >= CLONE_RETURNS
        ? `two machines use this identity: ${returnsMs.length} times within ${Math.round((nowMs - returnsMs[0]!) / 1_000)} s a process took the session back that another one had taken over (boot ids ${bootId.slice(0, 8)} and ${before.current.slice(0, 8)})`
        : null,
  };
}
