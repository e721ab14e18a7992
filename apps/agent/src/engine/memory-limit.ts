import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createMemoryGroup, ownMemoryCgroup, type MemoryGroup } from './cgroup.js';
import type { MemoryLimitBy } from './engine-host.js';

const MIB = 2 ** 20;
const WATCHDOG_EVERY_MS = 250;
/** Node and ONNX Runtime before anything was measured. */
const ASSUMED_RUNTIME_BYTES = 256 * MIB;

/** The bound on one engine process. */
export interface MemoryLimit {
  readonly by: MemoryLimitBy;
  bytes(): number;
  setBytes(bytes: number): Promise<void>;
  /** After the process ended: whether it was killed for its memory. */
  exceeded(): Promise<boolean>;
  release(): Promise<void>;
}

export interface MemoryLimitOptions {
  /** Kills the process; the watchdog's only means. */
  readonly kill: () => void;
  readonly prefer?: 'cgroup' | 'watchdog';
  /** Told why no group holds the process. */
  readonly onFallback?: (reason: string) => void;
}

/** While a slice loads, raw and packed weights may stand side by side. */
export const loadingLimitBytes = (modelMemoryBytes: number): number => 2 * modelMemoryBytes + 2 * ASSUMED_RUNTIME_BYTES;

/** The grant, and the runtime as measured with room for its heap to move. */
export const servingLimitBytes = (modelMemoryBytes: number, runtimeBytes: number): number =>
  modelMemoryBytes + Math.ceil(runtimeBytes * 1.5) + 64 * MIB;

/** Bounds the memory of process `pid`: by a control group where one can be made, else by watching its resident size. */
export async function limitMemory(pid: number, bytes: number, options: MemoryLimitOptions): Promise<MemoryLimit> {
  if (options.prefer !== 'watchdog') {
    const place = await ownMemoryCgroup();
    if (!place) options.onFallback?.('no memory controller is mounted');
    else
      try {
        return groupLimit(await createMemoryGroup(place, pid, bytes), bytes);
      } catch (error) {
        options.onFallback?.(`no group could be made below ${place.group}: ${(error as Error).message}`);
      }
  }
  return watchdogLimit(pid, bytes, options.kill);
}

function groupLimit(group: MemoryGroup, initialBytes: number): MemoryLimit {
  let bytes = initialBytes;
  return {
    by: group.version === 1 ? 'cgroup-v1' : 'cgroup-v2',
    bytes: () => bytes,
    setBytes: async (next) => {
      await group.setLimit(next);
      bytes = next;
    },
    exceeded: async () => (await group.kills()) > 0,
    release: () => group.remove(),
  };
}

function watchdogLimit(pid: number, initialBytes: number, kill: () => void): MemoryLimit {
  let bytes = initialBytes;
  let exceeded = false;
  let reading = false;
  const timer = setInterval(() => {
    if (reading) return;
    reading = true;
    void residentBytes(pid)
      .then((resident) => {
        if (resident === undefined || resident <= bytes || exceeded) return;
        exceeded = true;
        kill();
      })
      .finally(() => (reading = false));
  }, WATCHDOG_EVERY_MS);
  timer.unref();
  return {
    by: 'watchdog',
    bytes: () => bytes,
    setBytes: async (next) => void (bytes = next),
    exceeded: async () => exceeded,
    release: async () => clearInterval(timer),
  };
}

/** Resident size of a process; undefined when it has ended. */
export async function residentBytes(pid: number): Promise<number | undefined> {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    if (process.platform === 'linux') return undefined;
    return new Promise((resolve) =>
      execFile('ps', ['-o', 'rss=', '-p', String(pid)], { timeout: 2_000 }, (error, stdout) => resolve(error ? undefined : Number(stdout) * 1024)),
    );
  }
}
