import type { Device } from './api-types.js';

/** One point of a device's plots. */
export interface Sample {
  readonly atMs: number;
  readonly ttftMs: number;
  readonly tokensPerSecond: number;
}

export interface DeviceEntry {
  readonly device: Device;
  /** Oldest first, at most `historyLimit`. */
  readonly history: readonly Sample[];
}

/** The devices as this page last heard of them, by id. */
export type Fleet = ReadonlyMap<string, DeviceEntry>;

/** With one sample per `sampleEveryMs` at most, this is at least eight minutes of history and a few kilobytes per device. */
export const historyLimit = 240;
export const sampleEveryMs = 2_000;

/** The whole fleet was read: devices that are gone leave, those that stay keep their history. */
export function replaceDevices(fleet: Fleet, devices: readonly Device[], nowMs: number): Fleet {
  return new Map(devices.map((device) => [device.id, entryOf(fleet.get(device.id), device, nowMs)]));
}

/** News of one device. */
export function applyDevice(fleet: Fleet, device: Device, nowMs: number): Fleet {
  return new Map(fleet).set(device.id, entryOf(fleet.get(device.id), device, nowMs));
}

function entryOf(previous: DeviceEntry | undefined, device: Device, nowMs: number): DeviceEntry {
  const history = previous?.history ?? [];
  const last = history.at(-1);
  if (!device.latency || (last && nowMs - last.atMs < sampleEveryMs)) return { device, history };
  const sample = { atMs: nowMs, ttftMs: device.latency.ttftMs.p50, tokensPerSecond: device.latency.tokensPerSecond };
  return { device, history: [...history.slice(-(historyLimit - 1)), sample] };
}

export function byName(fleet: Fleet): readonly DeviceEntry[] {
  return [...fleet.values()].sort((a, b) => a.device.name.localeCompare(b.device.name, undefined, { numeric: true }));
}

export function countPresence(fleet: Fleet): Readonly<Record<Device['presence'], number>> {
  const count = { online: 0, suspect: 0, offline: 0 };
  for (const { device } of fleet.values()) count[device.presence]++;
  return count;
}

/** A device matches when every word of the text occurs in its name, labels, presence, slice, model or phase. */
export function matches(device: Device, text: string): boolean {
  const { name, presence, desired, phase } = device;
  const labels = device.labels.map(({ key, value }) => `${key}=${value}`);
  const haystack = [name, ...labels, presence, desired?.sliceId, desired?.modelName, desired?.modelVersionId, phase].join(' ').toLowerCase();
  return text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => haystack.includes(word));
}
