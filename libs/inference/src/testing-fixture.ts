import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A random-weight checkpoint with the reference's logits; see its README. For specs only. */
export const tinyCheckpoint = fileURLToPath(new URL('../fixtures/tiny-gemma3n/', import.meta.url));

/** A folder for a whole `describe`; call `remove` afterwards. */
export async function makeFolder(): Promise<{ dir: string; remove: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'matfleet-spec-'));
  return { dir, remove: () => rm(dir, { recursive: true, force: true }) };
}

/** Runs `use` with a folder that is gone afterwards. */
export async function withFolder<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const { dir, remove } = await makeFolder();
  try {
    return await use(dir);
  } finally {
    await remove();
  }
}

/** The largest absolute difference between two tables of logits; NaN when one holds NaN, an error when their shapes differ. */
export function largestDifference(got: readonly ArrayLike<number>[], want: readonly ArrayLike<number>[]): number {
  if (got.length !== want.length || got[0]?.length !== want[0]?.length)
    throw new Error(`shape ${got.length}x${got[0]?.length}, want ${want.length}x${want[0]?.length}`);
  let largest = 0;
  for (const [t, row] of want.entries()) for (let v = 0; v < row.length; v++) largest = Math.max(largest, Math.abs(got[t]![v]! - row[v]!));
  return largest;
}
