import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { hostname } from 'node:os';

// Unfinished files carry the mark of the process that makes them, so that a later one can tell what a killed process left. A process number
// alone says too little: it is given out again, and containers that share a disk and a host name have numbers of their own.

/** Files of unknown processes are left alone until nothing has changed in them for so long. */
const ABANDONED_AFTER_MS = 24 * 3_600_000;

/** `<space>-<pid>-<start>`: the boot and the process namespace that the number belongs to, and when the process began. */
export function ownerMark(pid = process.pid): string {
  return `${space()}-${pid}-${startOf(pid) ?? '0'}`;
}

/** The mark in a name that ends with a mark and eight random hexadecimal digits; undefined for other names. */
export const markIn = (name: string): string | undefined => /([0-9a-f]{12}-\d+-\d+)-[0-9a-f]{8}(?:\.onnx)?$/.exec(name)?.[1];

/** Whether the process that made `path` has ended, or nobody can know and nothing changed for a day. */
export async function isAbandoned(path: string, mark: string): Promise<boolean> {
  const [where, pid, start] = mark.split('-');
  if (where === space()) return startOf(Number(pid)) !== start;
  const changedAt = await stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => Date.now(),
  );
  return Date.now() - changedAt > ABANDONED_AFTER_MS;
}

let known: string | undefined;
function space(): string {
  known ??= createHash('sha256')
    .update([hostname(), read(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')), read(() => readlinkSync('/proc/self/ns/pid'))].join())
    .digest('hex')
    .slice(0, 12);
  return known;
}

/** In ticks since boot; '0' where the system does not tell; undefined when there is no such process. */
function startOf(pid: number): string | undefined {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined;
  }
  // The fields after the command's name, which stands in parentheses and may hold anything.
  const text = read(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  const [state, ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  if (state === 'Z') return undefined;
  return fields[18] ?? '0';
}

function read(source: () => string): string {
  try {
    return source();
  } catch {
    return '';
  }
}
