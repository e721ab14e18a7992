import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { memoryCgroup, type CgroupPlace } from '../engine/cgroup.js';

export interface Memory {
  readonly totalBytes: number;
  readonly availableBytes: number;
  /** The tightest limit of the control groups above; 0 where none bounds this process. */
  readonly limitBytes: number;
}

/** What this process may use: the machine's memory, or less where a control group bounds it or one above it. */
export function measureMemory(): Memory {
  const meminfo = read('/proc/meminfo');
  let totalBytes = kibOf(meminfo, 'MemTotal') ?? totalmem();
  let availableBytes = kibOf(meminfo, 'MemAvailable') ?? freemem();
  let limitBytes = 0;
  const place = memoryCgroup(read('/proc/self/cgroup'), read('/proc/self/mountinfo'));
  for (const group of place ? groupsUpwards(place) : []) {
    const limit = numberIn(group, place!.version === 1 ? 'memory.limit_in_bytes' : 'memory.max');
    const usedBytes = numberIn(group, place!.version === 1 ? 'memory.usage_in_bytes' : 'memory.current');
    // "max", or version 1's number near 2^63, is no limit.
    if (limit === undefined || limit > totalBytes) continue;
    totalBytes = limitBytes = limit;
    // What the page cache holds can be given back.
    const cacheBytes = Number(/^(?:total_inactive_file|inactive_file) (\d+)$/m.exec(read(join(group, 'memory.stat')))?.[1] ?? 0);
    availableBytes = Math.min(availableBytes, Math.max(0, limit - (usedBytes ?? 0) + cacheBytes));
  }
  return { totalBytes, availableBytes, limitBytes };
}

function* groupsUpwards({ group, mount }: CgroupPlace): Generator<string> {
  for (let at = group; ; at = dirname(at)) {
    yield at;
    if (at === mount || at === dirname(at)) return;
  }
}

function numberIn(group: string, file: string): number | undefined {
  const text = read(join(group, file)).trim();
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

const kibOf = (meminfo: string, name: string): number | undefined => {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
};

/** Empty where the file is not there: another system, or an older kernel. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
