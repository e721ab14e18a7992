import { describe, expect, it } from '@jest/globals';
import { checkDiskRoom, DiskFull, spareBytes } from './disk-room.js';

const GIB = 2 ** 30;
const room = (freeBytes: number, totalBytes: number) => Promise.resolve({ freeBytes, totalBytes });

describe('room on the disk', () => {
  it('is what comes, a twentieth of it, and at least a GiB', () => {
    expect(spareBytes(GIB, 100 * GIB)).toBe(GIB);
    expect(spareBytes(40 * GIB, 100 * GIB)).toBe(2 * GIB);
  });

  it('is a twentieth of a tiny disk where a GiB would be most of it', () => {
    expect(spareBytes(0.1 * GIB, 2 * GIB)).toBe(Math.ceil(0.1 * GIB));
  });

  it('is refused a byte too late, and not a byte too early', async () => {
    await expect(checkDiskRoom('/d', GIB, 'slice e2b', room(2 * GIB, 100 * GIB))).resolves.toBeUndefined();
    await expect(checkDiskRoom('/d', GIB, 'slice e2b', room(2 * GIB - 1, 100 * GIB))).rejects.toThrow(DiskFull);
  });

  it('is not lacking where the system does not tell, nor where nothing comes', async () => {
    await expect(checkDiskRoom('/d', 100 * GIB, 'slice e2b', Promise.resolve(undefined))).resolves.toBeUndefined();
    await expect(checkDiskRoom('/d', 0, 'slice e2b', room(0, 100 * GIB))).resolves.toBeUndefined();
  });
});
