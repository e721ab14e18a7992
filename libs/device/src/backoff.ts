/** Pure: when to try again after `failures` failed sessions in a row. */
export interface RetryPlan {
  /** Wait before the attempt, uniform in the window. */
  readonly beforeMs: number;
  /** Wait this long from the window's start before the next one begins, so that restarts never bunch up. */
  readonly windowMs: number;
}

const FIRST_WINDOW_MS = 1_000;
const LARGEST_DOUBLING = 6;

/** A session that was healthy for this long clears the count of failures. */
export const HEALTHY_MS = 60_000;

/** Window of 1 s × 2^min(failures, 6); `chance` in [0, 1) places the attempt inside it. */
export function retryPlan(failures: number, chance: number): RetryPlan {
  const windowMs = FIRST_WINDOW_MS * 2 ** Math.min(Math.max(0, failures), LARGEST_DOUBLING);
  return { beforeMs: Math.floor(windowMs * chance), windowMs };
}

/** Failures in a row once a session has ended: a healthy one starts the count anew. */
export const failuresAfter = (failuresBefore: number, healthyMs: number): number => (healthyMs >= HEALTHY_MS ? 0 : failuresBefore + 1);
