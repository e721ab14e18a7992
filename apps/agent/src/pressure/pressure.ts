/** What a box says of itself; unset where it does not tell. */
export interface Signals {
  /** Share of the last ten seconds in which every process waited for memory. */
  readonly memoryFullPercent?: number | undefined;
  /** Of what this process may use. */
  readonly availableShare: number;
  readonly temperatureCelsius?: number | undefined;
  readonly throttlesAtCelsius?: number | undefined;
  readonly onBattery: boolean;
  readonly batteryPercent?: number | undefined;
}

/** How far the device has gone down from its assigned slice, and why. Times are milliseconds on a monotonic clock. */
export interface Descent {
  /** Slices below the assigned one. */
  readonly steps: number;
  /** Empty at the assigned one. */
  readonly reason: string;
  readonly changedAtMs: number;
  /** Since when nothing presses. */
  readonly calmSinceMs: number | undefined;
  /** Calm that it takes to climb one step. */
  readonly holdOffMs: number;
  readonly climbedAtMs: number;
}

const FIRST_HOLD_OFF_MS = 30_000;
const LONGEST_HOLD_OFF_MS = 60 * 60_000;
/** A step has this long to help before the next one. */
const STEP_MS = 5_000;
/** A climb that lasted longer than this was right. */
const CLIMB_HELD_MS = 10 * 60_000;

const MEMORY_FULL_PERCENT = 10;
const LEAST_AVAILABLE_SHARE = 0.04;
const BELOW_THROTTLE_CELSIUS = 2;
const LOW_BATTERY_PERCENT = 15;

export const ASSIGNED: Descent = {
  steps: 0,
  reason: '',
  changedAtMs: -Infinity,
  calmSinceMs: undefined,
  holdOffMs: FIRST_HOLD_OFF_MS,
  climbedAtMs: -Infinity,
};

/**
 * Down at once when something presses, one slice at a time; up again one slice after a time of calm. Each climb that had to be taken back doubles
 * that time, up to an hour. Between the two thresholds nothing moves.
 */
export function nextDescent(last: Descent, signals: Signals, mostSteps: number, nowMs: number): Descent {
  const steps = Math.min(last.steps, mostSteps);
  const before = { ...last, steps, reason: steps === 0 ? '' : last.reason };
  const pressing = pressure(signals, 1);
  if (pressing !== undefined) {
    const rested = { ...before, calmSinceMs: undefined };
    if (steps >= mostSteps || nowMs - before.changedAtMs < STEP_MS) return rested;
    const tookBack = nowMs - before.climbedAtMs < CLIMB_HELD_MS;
    const holdOffMs = tookBack ? Math.min(LONGEST_HOLD_OFF_MS, before.holdOffMs * 2) : FIRST_HOLD_OFF_MS;
    return { ...rested, steps: steps + 1, reason: pressing, changedAtMs: nowMs, holdOffMs, climbedAtMs: -Infinity };
  }
  if (steps === 0) return { ...before, calmSinceMs: undefined };
  if (pressure(signals, 0.5) !== undefined) return { ...before, calmSinceMs: undefined };
  const calmSinceMs = before.calmSinceMs ?? nowMs;
  if (nowMs - Math.max(calmSinceMs, before.changedAtMs) < before.holdOffMs) return { ...before, calmSinceMs };
  return { ...before, steps: steps - 1, reason: steps === 1 ? '' : before.reason, changedAtMs: nowMs, calmSinceMs, climbedAtMs: nowMs };
}

/** What presses, with its number; at a `share` of the thresholds, 1 or less. */
function pressure(signals: Signals, share: number): string | undefined {
  const { memoryFullPercent, availableShare, temperatureCelsius, throttlesAtCelsius, onBattery, batteryPercent } = signals;
  if (memoryFullPercent !== undefined && memoryFullPercent >= MEMORY_FULL_PERCENT * share)
    return `memory: every process waited for it ${memoryFullPercent.toFixed(0)} % of the last 10 s`;
  if (availableShare <= LEAST_AVAILABLE_SHARE / share) return `memory: ${(availableShare * 100).toFixed(1)} % is available`;
  if (
    temperatureCelsius !== undefined &&
    throttlesAtCelsius !== undefined &&
    temperatureCelsius >= throttlesAtCelsius - BELOW_THROTTLE_CELSIUS / share
  )
    return `heat: ${temperatureCelsius.toFixed(0)} °C, the processor slows down from ${throttlesAtCelsius.toFixed(0)} °C`;
  if (onBattery && batteryPercent !== undefined && batteryPercent <= LOW_BATTERY_PERCENT / share) return `battery: ${batteryPercent} %`;
  return undefined;
}
