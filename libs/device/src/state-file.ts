import { closeSync, fsyncSync, openSync, readFileSync, renameSync, statfsSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ZodType } from 'zod';

/** Replaces a small file so that a reader sees the old or the new bytes, also after power loss. Synchronous: callers order their steps by it. */
export function writeFileDurably(path: string, data: string | Uint8Array, mode = 0o600): void {
  const temporary = `${path}.tmp`;
  try {
    const file = openSync(temporary, 'w', mode);
    try {
      writeFileSync(file, data);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (cause) {
    // The name must lead to the cause: which file, how much, how much room.
    throw new Error(`cannot write ${path} (${data.length} bytes, ${freeText(dirname(path))}): ${(cause as Error).message}`, { cause });
  }
}

function freeText(directory: string): string {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return `${bavail * bsize} bytes free`;
  } catch {
    return 'free space unknown';
  }
}

/** Makes renames inside `path` durable. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Undefined when there is no file. A file that does not parse is set aside as `<path>.damaged`: a device must start without its state rather than not at all. */
export function readStateFile<T>(path: string, schema: ZodType<T>): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    renameSync(path, `${path}.damaged`);
    return undefined;
  }
}
