import type { Presence } from './presence.js';
import { formatDuration, formatMs, formatQuality } from './units.js';

/** A device as the router sees it. */
export interface RoutableDevice {
  readonly deviceId: string;
  readonly name: string;
  readonly presence: Presence;
  /** Of its live session; a device that comes back under a new epoch counts as untried. */
  readonly epoch: bigint;
  /** What it runs now; null until a slice is active. */
  readonly active: { readonly modelVersionId: string; readonly sliceId: string; readonly sliceName: string; readonly quality: number | null } | null;
  readonly engineReady: boolean;
  /** Inferences waiting or running there, ours and its own applications'. */
  readonly queued: number;
  /** Predicted or measured. */
  readonly ttftMs: number;
  readonly interTokenMs: number;
  /** No new work before this time; 0 when closed. */
  readonly breakerOpenUntilMs: number;
}

/** A try that did not give the answer. */
export interface Tried {
  readonly deviceId: string;
  readonly epoch: bigint;
  readonly quality: number | null;
  readonly endedAtMs: number;
  /** The device said "not now" (queue full, engine restarting, slice changing): it may be asked again a little later. */
  readonly retryable: boolean;
}

export interface RouteRequest {
  /** Least acceptable quality 0..1; null accepts any. */
  readonly qualityFloor: number | null;
  readonly remainingMs: number;
  /** Tokens expected in the answer, for the prediction of its end. */
  readonly expectedTokens: number;
  readonly tried: readonly Tried[];
  readonly nowMs: number;
}

export type Route<D extends RoutableDevice = RoutableDevice> =
  | { readonly kind: 'device'; readonly device: D; readonly predictedMs: number; readonly reason: string }
  | {
      readonly kind: 'none';
      readonly reason: string;
      /** Could change by waiting: true unless the attempts are used up. */ readonly waitMayHelp: boolean;
    };

/** Attempts that one inference may cost the fleet. */
export const MAX_ATTEMPTS = 6;
/** Before a device that refused for the moment is asked again. */
export const RETRY_AFTER_MS = 1_000;

/**
 * The device for the next attempt. First attempt: of the devices that meet the floor, the one predicted to finish first. Later attempts:
 * of those not tried yet, one of larger quality than the last tried, again the first to finish; when there is none larger, any other that
 * meets the floor.
 */
export function route<D extends RoutableDevice>(devices: readonly D[], request: RouteRequest): Route<D> {
  if (request.tried.length >= MAX_ATTEMPTS)
    return { kind: 'none', reason: `${request.tried.length} attempts failed, the most that one inference may cost`, waitMayHelp: false };
  const open = devices.filter((device) => refusal(device, request) === null);
  const larger = open.filter((device) => largerThanTried(device, request.tried));
  const pool = larger.length > 0 ? larger : open;
  const chosen = pool.reduce<D | null>((best, next) => (best === null || faster(next, best, request) ? next : best), null);
  if (!chosen) return { kind: 'none', reason: noneReason(devices, request), waitMayHelp: true };
  return {
    kind: 'device',
    device: chosen,
    predictedMs: predictedMs(chosen, request),
    reason: chosenReason(chosen, larger.length > 0, devices, request),
  };
}

/** Milliseconds until the whole answer: what waits before it, the first token, the rest. */
export function predictedMs(device: RoutableDevice, request: Pick<RouteRequest, 'expectedTokens'>): number {
  const one = device.ttftMs + device.interTokenMs * Math.max(0, request.expectedTokens - 1);
  return one * (device.queued + 1);
}

/** Why a device cannot take this inference now; null when it can. Ordered so that the most telling reason comes first. */
function refusal(device: RoutableDevice, request: RouteRequest): string | null {
  if (device.presence !== 'online') return `is ${device.presence}`;
  if (!device.active) return 'runs no slice yet';
  if (!meetsFloor(device, request.qualityFloor))
    return `${formatQuality(device.active.quality)} with ${device.active.sliceName} is below the floor of ${formatQuality(request.qualityFloor)}`;
  if (!device.engineReady) return 'has its engine restarting';
  if (device.breakerOpenUntilMs > request.nowMs)
    return `failed repeatedly and rests for ${formatDuration(device.breakerOpenUntilMs - request.nowMs)}`;
  const tried = request.tried.filter((one) => one.deviceId === device.deviceId && one.epoch === device.epoch);
  if (tried.some((one) => !one.retryable)) return 'was already tried';
  if (tried.some((one) => request.nowMs - one.endedAtMs < RETRY_AFTER_MS)) return 'refused a moment ago';
  return null;
}

const meetsFloor = (device: RoutableDevice, floor: number | null): boolean => floor === null || (device.active?.quality ?? -1) >= floor;

function largerThanTried(device: RoutableDevice, tried: readonly Tried[]): boolean {
  const last = tried.at(-1);
  return last !== undefined && (device.active?.quality ?? -1) > (last.quality ?? -1);
}

/** Of two that finish at the same time the better, then the one with the lower id, so that equal fleets route equally. */
function faster(a: RoutableDevice, b: RoutableDevice, request: RouteRequest): boolean {
  const difference = predictedMs(a, request) - predictedMs(b, request);
  if (difference !== 0) return difference < 0;
  const quality = (a.active?.quality ?? -1) - (b.active?.quality ?? -1);
  return quality !== 0 ? quality > 0 : a.deviceId < b.deviceId;
}

function chosenReason(device: RoutableDevice, isLarger: boolean, devices: readonly RoutableDevice[], request: RouteRequest): string {
  const active = device.active!;
  const time = `${formatMs(predictedMs(device, request))} predicted${device.queued > 0 ? ` behind ${device.queued} others` : ''}`;
  const floor = request.qualityFloor === null ? '' : `, floor ${formatQuality(request.qualityFloor)}`;
  const what = `${device.name} runs ${active.sliceName} (${formatQuality(active.quality)}${floor}), ${time}`;
  if (request.tried.length > 0)
    return `attempt ${request.tried.length + 1}: ${isLarger ? 'larger than the device that failed' : 'no larger device is left, this one meets the same floor'}; ${what}`;
  const passedOver = devices.filter((other) => other.presence === 'online' && other.active && !meetsFloor(other, request.qualityFloor));
  return passedOver.length === 0 ? what : `${what}; ${list(passedOver.map((other) => `${other.name} ${refusal(other, request)}`))}`;
}

function noneReason(devices: readonly RoutableDevice[], request: RouteRequest): string {
  if (devices.length === 0) return 'the fleet has no devices';
  const running = devices.filter((device) => device.presence === 'online' && device.active);
  const best = running.reduce<RoutableDevice | null>(
    (top, next) => (top === null || (next.active!.quality ?? -1) > (top.active!.quality ?? -1) ? next : top),
    null,
  );
  const floor =
    request.qualityFloor === null
      ? ''
      : `No device meets the quality floor of ${formatQuality(request.qualityFloor)} now; best available: ${best ? `${best.name} with ${best.active!.sliceName} at ${formatQuality(best.active!.quality)}` : 'none'}. `;
  return `${floor}${list(devices.map((device) => `${device.name} ${refusal(device, request)}`))}`;
}

/** Bounded: a reason is for a person. */
const list = (parts: readonly string[]): string =>
  parts.length <= 5 ? parts.join('; ') : `${parts.slice(0, 5).join('; ')}; and ${parts.length - 5} more`;

/** How long an attempt may stay silent. */
export interface SilenceTerms {
  readonly firstTokenMs: number;
  readonly nextTokenMs: number;
}

/**
 * Deadlines of one attempt: a frozen device must not eat the whole time of the inference, so while others could still answer it gets at
 * most half of what remains before its first token, and never more than the terms.
 */
export function silenceDeadlines(terms: SilenceTerms, remainingMs: number, othersCouldAnswer: boolean): SilenceTerms {
  const share = othersCouldAnswer ? remainingMs / 2 : remainingMs;
  return { firstTokenMs: Math.max(1, Math.min(terms.firstTokenMs, share)), nextTokenMs: Math.max(1, Math.min(terms.nextTokenMs, remainingMs)) };
}
