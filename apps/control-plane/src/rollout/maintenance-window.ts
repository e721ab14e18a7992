import { CronExpressionParser } from 'cron-parser';
import type { RolloutPlan } from '../domain/rollout-plan.js';

type Window = NonNullable<RolloutPlan['window']>;

export interface WindowSight {
  readonly isOpen: boolean;
  readonly changesAtMs: number;
}

/** When a window opens and closes, by time zone; each zone is worked out once. One for one look at a rollout. */
export class MaintenanceWindows {
  private readonly zones = new Map<string, WindowSight>();

  constructor(
    private readonly window: Window,
    private readonly nowMs: number,
  ) {}

  /** On the clock of this zone; of the plan's, for a device that tells none or one that nobody knows. */
  at(timeZone: string | null): WindowSight {
    const zone = timeZone !== null && isTimeZone(timeZone) ? timeZone : this.window.timeZone;
    const known = this.zones.get(zone);
    if (known) return known;
    const sight = windowAt(this.window, zone, this.nowMs);
    this.zones.set(zone, sight);
    return sight;
  }
}

/** Whether the window is open, and when that changes. A window that opened less than its duration ago is open; two that overlap are one. */
export function windowAt({ cron, durationMs }: Pick<Window, 'cron' | 'durationMs'>, timeZone: string, nowMs: number): WindowSight {
  const openings = CronExpressionParser.parse(cron, { currentDate: new Date(nowMs + 1), tz: timeZone });
  const lastMs = openings.prev().getTime();
  if (nowMs - lastMs < durationMs) return { isOpen: true, changesAtMs: lastMs + durationMs };
  const nextMs = CronExpressionParser.parse(cron, { currentDate: new Date(nowMs), tz: timeZone })
    .next()
    .getTime();
  return { isOpen: false, changesAtMs: nextMs };
}

/** What is wrong with a window, in words; null for a good one. */
export function windowProblem({ cron, timeZone }: Window): string | null {
  if (!isTimeZone(timeZone)) return `window.timeZone: ${JSON.stringify(timeZone)} is no time zone`;
  if (cron.trim().split(/\s+/).length !== 5) return 'window.cron: has five fields, minute to weekday';
  try {
    CronExpressionParser.parse(cron, { tz: timeZone }).next();
    return null;
  } catch (error) {
    return `window.cron: ${(error as Error).message}`;
  }
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
