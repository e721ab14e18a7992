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

/** A control plane that says Welcome has room: sessions that end soon after it do not push the wait beyond this step, 16 s. */
const SHORT_SESSION_STEP = 4;

/** Failures in a row once a session has ended, `healthyMs` after its Welcome (0: there was none): a healthy one starts the count anew. */
export function failuresAfter(failuresBefore: number, healthyMs: number): number {
  if (healthyMs >= HEALTHY_MS) return 0;
  return healthyMs > 0 ? Math.min(failuresBefore + 1, SHORT_SESSION_STEP) : failuresBefore + 1;
}
