import { constants } from 'node:fs';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

const FILE_BYTES = 16 * 2 ** 20;
const PAGE_BYTES = 4_096;
const READS = 200;
const BUDGET_MS = 500;

/**
 * Median time of a random 4 KiB read from the disk under `dir`, milliseconds: what a row of per-layer embeddings costs that is in no cache. Reads a
 * file of its own past the page cache (O_DIRECT). Undefined where the file system does not do that; a tmpfs, for one.
 *
 * @param random uniform in [0, 1)
 */
export async function probeDiskLatencyMs(dir: string, random: () => number = Math.random): Promise<number | undefined> {
  const path = join(dir, '.disk-latency');
  try {
    const written = await open(path, 'w', 0o600);
    try {
      const part = Buffer.alloc(2 ** 20, 0x5a);
      for (let at = 0; at < FILE_BYTES; at += part.length) await written.write(part, 0, part.length, at);
      await written.datasync();
    } finally {
      await written.close();
    }
    const file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    try {
      const buffer = Buffer.allocUnsafeSlow(2 * PAGE_BYTES);
      const offset = await alignedOffset(file, buffer);
      if (offset === undefined) return undefined;
      const times: number[] = [];
      const until = performance.now() + BUDGET_MS;
      while (times.length < READS && performance.now() < until) {
        const at = Math.floor(random() * (FILE_BYTES / PAGE_BYTES)) * PAGE_BYTES;
        const from = performance.now();
        const { bytesRead } = await file.read(buffer, offset, PAGE_BYTES, at);
        if (bytesRead !== PAGE_BYTES) return undefined;
        times.push(performance.now() - from);
      }
      return times.sort((a, b) => a - b)[times.length >> 1];
    } finally {
      await file.close();
    }
  } catch {
    return undefined;
  } finally {
    await rm(path, { force: true });
  }
}

/** Direct reads want memory at a multiple of the disk's block; JavaScript does not tell an address, so this tries until the kernel agrees. */
async function alignedOffset(file: FileHandle, buffer: Buffer): Promise<number | undefined> {
  for (let offset = 0; offset < PAGE_BYTES; offset += 16) {
    try {
      await file.read(buffer, offset, PAGE_BYTES, 0);
      return offset;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    }
  }
  return undefined;
}
