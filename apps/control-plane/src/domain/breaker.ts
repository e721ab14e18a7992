/**
 * Keeps work from a slice on a device that keeps failing. Opens after failures in a row, each time for longer; once that has passed, one attempt
 * at a time may probe it; one success closes it. Times are milliseconds on the caller's clock.
 */
export interface Breaker {
  readonly failures: number;
  /** 0 when closed. */
  readonly openUntilMs: number;
  /** A probe is under way, at the longest until then; 0 when none is. */
  readonly probeUntilMs: number;
}

export const CLOSED: Breaker = { failures: 0, openUntilMs: 0, probeUntilMs: 0 };

const OPEN_AFTER_FAILURES = 3;
const FIRST_OPEN_MS = 5_000;
const LONGEST_OPEN_MS = 5 * 60_000;
const LONGEST_PROBE_MS = 60_000;

export function afterFailure(breaker: Breaker, nowMs: number): Breaker {
  const failures = breaker.failures + 1;
  if (failures < OPEN_AFTER_FAILURES) return { ...CLOSED, failures };
  const openMs = Math.min(LONGEST_OPEN_MS, FIRST_OPEN_MS * 2 ** Math.min(20, failures - OPEN_AFTER_FAILURES));
  return { failures, openUntilMs: nowMs + openMs, probeUntilMs: 0 };
}

/** An attempt begins: on a half-open breaker it is the probe. */
export const whileTried = (breaker: Breaker, nowMs: number): Breaker =>
  breaker.failures >= OPEN_AFTER_FAILURES ? { ...breaker, probeUntilMs: nowMs + LONGEST_PROBE_MS } : breaker;

/** The attempt said nothing about the device: it was cancelled, or refused for the moment. The next one may probe. */
export const afterNeither = (breaker: Breaker): Breaker => ({ ...breaker, probeUntilMs: 0 });

/** No new attempt before this time; 0 when one may begin at any time. */
export const closedToWorkUntilMs = ({ openUntilMs, probeUntilMs }: Breaker): number => Math.max(openUntilMs, probeUntilMs);
