/** Keeps work from a device that keeps failing. Opens after failures in a row, each time for longer; one success closes it. */
export interface Breaker {
  readonly failures: number;
  /** Milliseconds on the caller's clock; 0 when closed. Once it has passed, one attempt may probe the device. */
  readonly openUntilMs: number;
}

export const CLOSED: Breaker = { failures: 0, openUntilMs: 0 };

const OPEN_AFTER_FAILURES = 3;
const FIRST_OPEN_MS = 5_000;
const LONGEST_OPEN_MS = 5 * 60_000;

export function afterFailure(breaker: Breaker, nowMs: number): Breaker {
  const failures = breaker.failures + 1;
  if (failures < OPEN_AFTER_FAILURES) return { failures, openUntilMs: 0 };
  return { failures, openUntilMs: nowMs + Math.min(LONGEST_OPEN_MS, FIRST_OPEN_MS * 2 ** Math.min(20, failures - OPEN_AFTER_FAILURES)) };
}

export const afterSuccess = (): Breaker => CLOSED;
