/** How late timers may be on average before a process counts as one that does not keep up, milliseconds. One long pause does not make it so. */
export const LATE_MS = 100;
/** However late it is, it takes this share: those who wait must get in some time. */
const SHARE_MIN = 0.02;
const FASTER = 1.25;

/**
 * The share of what it could take that a process takes next, in (0, 1]: half as much each time that it was late, more again while it is not. What it
 * turns away costs it almost nothing, and what it has keeps being served; without this, work for callers who have given up crowds out all other.
 */
export function nextShare(share: number, lateMs: number): number {
  if (lateMs > LATE_MS) return Math.max(SHARE_MIN, share / 2);
  return lateMs > LATE_MS / 2 ? share : Math.min(1, share * FASTER);
}
