import { instantMs } from './rollout-plan.js';
import { nextTokenMs, perMinute, refill, type Pace } from './rollout-rate.js';
import type { Hold, RolloutSight, WaveSight } from './rollout-sight.js';
import { onFailure, type ChangeOver, type TargetMove, type TargetSight } from './rollout-target.js';
import { formatDuration } from './units.js';

interface Begun {
  readonly moves: readonly TargetMove[];
  readonly holds: readonly Hold[];
  readonly pace: Pace | null;
  readonly wakeAtMs: number | null;
}

/** Whom to begin now: in the order of `targets`, as many as rate, spread, windows and other rollouts allow. `read` are moves made already. */
export function beginTargets(
  rollout: RolloutSight,
  wave: WaveSight,
  targets: readonly TargetSight[],
  read: readonly TargetMove[],
  nowMs: number,
): Begun {
  const { plan, timeouts } = rollout;
  const moved = new Set(read.map(({ deviceId }) => deviceId));
  const succeeded = rollout.waves.reduce((sum, { tally }) => sum + tally.succeeded, 0);
  const limit = perMinute(plan.rate, succeeded);
  const pace = limit === null ? null : refill(rollout.pace, limit, nowMs);
  let tokens = pace?.tokens ?? Infinity;
  let wakeAtMs = Infinity;
  const busy = new Map<string, number>();
  for (const { state, spreadBy, deviceId } of targets)
    if (state === 'pushed' && spreadBy !== null && !moved.has(deviceId)) busy.set(spreadBy, (busy.get(spreadBy) ?? 0) + 1);

  const moves: TargetMove[] = [...read];
  const holds: Hold[] = [];
  const hold = (deviceId: string, kind: Hold['kind'], reason: string): void => void holds.push({ deviceId, kind, reason });
  const changeOver = changeOverAt(rollout, nowMs);
  const forceAtMs = plan.forceAt === undefined ? null : instantMs(plan.forceAt);
  if (forceAtMs !== null && forceAtMs > nowMs) wakeAtMs = Math.min(wakeAtMs, forceAtMs);

  for (const target of targets) {
    const { deviceId, state, window, spreadBy } = target;
    if (moved.has(deviceId)) continue;
    if (state === 'pushed') {
      // Written as taken and then cut short, or due to be forced: the document is sent (again).
      if (target.generation === null || (target.changeOver === 'when-idle' && changeOver === 'at-once'))
        moves.push({ kind: 'push', deviceId, changeOver: target.generation === null ? (target.changeOver ?? changeOver) : changeOver });
      continue;
    }
    if (state === 'fetching') {
      if (target.generation === null) moves.push({ kind: 'push', deviceId, changeOver: 'hold' });
      continue;
    }
    if (state !== 'waiting' && state !== 'fetched') continue;
    if (target.heldBy !== null) {
      hold(deviceId, 'other-rollout', `rollout ${target.heldBy} has the device and goes first`);
      continue;
    }
    if (target.retryAtMs !== null && nowMs < target.retryAtMs) {
      wakeAtMs = Math.min(wakeAtMs, target.retryAtMs);
      hold(deviceId, 'retry', `is tried again in ${formatDuration(target.retryAtMs - nowMs)}`);
      continue;
    }
    if (!target.isHere) {
      const missedMs = nowMs - Math.max(wave.openedAtMs ?? nowMs, target.sinceMs);
      if (missedMs >= timeouts.reachMs)
        moves.push(onFailure(target, plan, 'unreachable', `the device did not come by within ${formatDuration(timeouts.reachMs)}`, nowMs));
      else hold(deviceId, 'away', 'the device is not here');
      continue;
    }
    if (window && !window.isOpen) wakeAtMs = Math.min(wakeAtMs, window.changesAtMs);
    const closed = window !== null && !window.isOpen;
    const only = plan.downloadOnly || closed;
    if (closed && !plan.downloadOnly && (state === 'fetched' || !plan.window?.prefetch)) {
      hold(deviceId, 'window', `its maintenance window opens in ${formatDuration(window.changesAtMs - nowMs)}`);
      continue;
    }
    if (!only && spreadBy !== null && (busy.get(spreadBy) ?? 0) >= plan.spread!.atOnce) {
      hold(deviceId, 'spread', `${busy.get(spreadBy)} of ${plan.spread!.label} ${spreadBy} are on their way, at most ${plan.spread!.atOnce} at once`);
      continue;
    }
    if (tokens < 1) {
      wakeAtMs = Math.min(wakeAtMs, nowMs + nextTokenMs({ tokens, atMs: nowMs }, limit!));
      hold(deviceId, 'rate', `${limit} devices a minute are begun`);
      continue;
    }
    tokens -= 1;
    if (!only && spreadBy !== null) busy.set(spreadBy, (busy.get(spreadBy) ?? 0) + 1);
    moves.push({ kind: 'push', deviceId, changeOver: only ? 'hold' : changeOver });
  }
  return { moves, holds, pace: pace && { ...pace, tokens }, wakeAtMs: wakeAtMs === Infinity ? null : wakeAtMs };
}

function changeOverAt({ plan }: RolloutSight, nowMs: number): ChangeOver {
  if (plan.mode === 'forced') return 'at-once';
  return plan.forceAt !== undefined && nowMs >= instantMs(plan.forceAt) ? 'at-once' : 'when-idle';
}
