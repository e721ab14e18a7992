import { setTimeout as delay } from 'node:timers/promises';

/** Hours of the day, on this device's clock and in its time zone; may reach over midnight. Minutes since midnight, [from, to). */
export interface DailyWindow {
  readonly fromMinute: number;
  readonly toMinute: number;
}

const DAY_MINUTES = 24 * 60;
const MINUTE_MS = 60_000;

/** `08:00-20:00`, `22:30-06:00`; undefined for anything else. */
export function parseDailyWindow(text: string): DailyWindow | undefined {
  const match = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(text.trim());
  if (!match) return undefined;
  const [fromHour, fromMinute, toHour, toMinute] = match.slice(1).map(Number) as [number, number, number, number];
  const window = { fromMinute: fromHour * 60 + fromMinute, toMinute: toHour * 60 + toMinute };
  return window.fromMinute === window.toMinute ? undefined : window;
}

/** Pure: milliseconds until the window that holds `now` ends; 0 outside of it. */
export function leftOfWindowMs({ fromMinute, toMinute }: DailyWindow, now: Date): number {
  const minute = now.getHours() * 60 + now.getMinutes();
  const inside = fromMinute < toMinute ? fromMinute <= minute && minute < toMinute : minute >= fromMinute || minute < toMinute;
  if (!inside) return 0;
  const minutes = (toMinute - minute + DAY_MINUTES) % DAY_MINUTES;
  return minutes * MINUTE_MS - now.getSeconds() * 1_000 - now.getMilliseconds();
}

export interface PaceOptions {
  /** Of all downloads of this device together; absent: no limit. */
  readonly bytesPerSecond?: number | undefined;
  /** While one of these lasts, nothing is downloaded. */
  readonly quietHours?: readonly DailyWindow[];
  readonly now?: () => Date;
}

/** So much may arrive at once before the limit is felt: a message or two. */
const BURST_MS = 250;
/** A clock that is set, or a summer time that begins, is noticed within this. */
const LOOK_MS = 1_000;

/** How fast this device may download, and when not at all. One for all of its downloads. */
export class Pace {
  private paidUntilMs = 0;

  constructor(private readonly options: PaceOptions = {}) {}

  /** Milliseconds until the present quiet hours end; 0 when there are none. */
  quietMs(): number {
    const now = this.options.now?.() ?? new Date();
    return Math.max(0, ...(this.options.quietHours ?? []).map((window) => leftOfWindowMs(window, now)));
  }

  /** Resolves once no quiet hours are left. Rejects when `signal` aborts. */
  async outsideQuietHours(signal: AbortSignal): Promise<void> {
    for (let ms = this.quietMs(); ms > 0; ms = this.quietMs()) await delay(Math.min(ms, LOOK_MS), undefined, { signal });
    signal.throwIfAborted();
  }

  /** After `bytes` have come: resolves when the limit lets more come. Rejects when `signal` aborts. */
  async spend(bytes: number, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond } = this.options;
    if (bytesPerSecond === undefined) return;
    const nowMs = performance.now();
    this.paidUntilMs = Math.max(nowMs, this.paidUntilMs) + (bytes / bytesPerSecond) * 1_000;
    const waitMs = this.paidUntilMs - nowMs - BURST_MS;
    if (waitMs > 0) await delay(waitMs, undefined, { signal });
  }
}
