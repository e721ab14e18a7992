import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Throws when the disk that `path` will lie on has less than `needed` bytes for this user. */
export async function assertRoom(path: string, needed: number, what: string): Promise<void> {
  const free = await freeBytes(path);
  if (free !== undefined && free < needed) throw new Error(`${what} needs ${megabytes(needed)}, the disk of ${path} has ${megabytes(free)} free`);
}

/** The error of a write that found the disk full, with the numbers that help; any other error as it is. */
export async function explainFullDisk(error: unknown, path: string, needed: number, what: string): Promise<unknown> {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  const free = await freeBytes(path);
  return new Error(
    `the disk of ${path} became full: ${what} needs ${megabytes(needed)}${free === undefined ? '' : `, ${megabytes(free)} are free now that its unfinished files are removed`}`,
    { cause: error },
  );
}

async function freeBytes(path: string): Promise<number | undefined> {
  for (let dir = path; ; dir = dirname(dir)) {
    const found = await statfs(dir).catch(() => undefined);
    if (found) return found.bavail * found.bsize;
    // Where the answer is unknown, the write itself decides.
    if (dirname(dir) === dir) return undefined;
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
