import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A random-weight checkpoint with the reference's logits; see its README. For specs only. */
export const tinyCheckpoint = fileURLToPath(new URL('../fixtures/tiny-gemma3n/', import.meta.url));

/** Runs `use` with a folder that is gone afterwards. */
export async function withFolder<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), 'matfleet-spec-'));
  try {
    return await use(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
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
