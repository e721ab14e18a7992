import type { Rate } from './rollout-plan.js';

/** What may still be begun, and when that was worked out. */
export interface Pace {
  readonly tokens: number;
  readonly atMs: number;
}

/** No more than one second's devices are begun at once, and never less than one. */
const burst = (perMinute: number): number => Math.max(1, perMinute / 60);

/** Devices a minute at this point of the rollout; null without a limit. */
export function perMinute(rate: Rate | undefined, succeeded: number): number | null {
  if (!rate) return null;
  if (rate.kind === 'constant') return rate.perMinute;
  return Math.min(rate.maxPerMinute, rate.basePerMinute * rate.factor ** Math.floor(succeeded / rate.everySucceeded));
}

/** The pace now; a rollout begins with one second's devices. */
export function refill(pace: Pace | null, limit: number, nowMs: number): Pace {
  if (!pace) return { tokens: burst(limit), atMs: nowMs };
  const earned = (Math.max(0, nowMs - pace.atMs) * limit) / 60_000;
  return { tokens: Math.min(burst(limit), pace.tokens + earned), atMs: nowMs };
}

/** Milliseconds until one more may begin. */
export const nextTokenMs = (pace: Pace, limit: number): number => (pace.tokens >= 1 ? 0 : Math.ceil(((1 - pace.tokens) * 60_000) / limit));
