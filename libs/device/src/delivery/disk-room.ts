import { statfs } from 'node:fs/promises';

const GIB = 2 ** 30;
const SPARE_SHARE = 0.05;

export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Undefined where the system does not tell: unknown is not full. */
export async function diskSpace(directory: string): Promise<DiskSpace | undefined> {
  try {
    const { bavail, blocks, bsize } = await statfs(directory);
    // Some network and overlay file systems answer zeros.
    return blocks > 0 ? { freeBytes: bavail * bsize, totalBytes: blocks * bsize } : undefined;
  } catch {
    return undefined;
  }
}

/** Pure: what must stay free beside `bytes` to come: a twentieth of them, and a GiB or, on a disk below 20 GiB, a twentieth of the disk. */
export const spareBytes = (bytes: number, totalBytes: number): number =>
  Math.ceil(Math.max(SPARE_SHARE * bytes, Math.min(GIB, SPARE_SHARE * totalBytes)));

/** There is no room on the disk: known before a byte was fetched, or found out on the way. */
export class DiskFull extends Error {}

/** Throws DiskFull naming the shortfall when `bytes` more do not fit into `directory`. */
export async function checkDiskRoom(directory: string, bytes: number, what: string, space = diskSpace(directory)): Promise<void> {
  const known = await space;
  if (bytes === 0 || !known) return;
  const spare = spareBytes(bytes, known.totalBytes);
  const short = bytes + spare - known.freeBytes;
  if (short > 0)
    throw new DiskFull(
      `${what} needs ${megabytes(bytes)} more in ${directory} and ${megabytes(spare)} to spare; ${megabytes(known.freeBytes)} are free, so ${megabytes(short)} are lacking`,
    );
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;
