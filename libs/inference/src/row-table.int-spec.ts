import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { RowTable, type RowRange } from './row-table.js';
import { makeFolder } from './testing-fixture.js';

// 100 rows in two chunks; a row is 6 bytes of one tensor, whose rows are padded to 8, and 4 bytes of another.
const ROWS = 100;
const SPLIT = 60;
const bytesOf = (row: number): number[] => Array.from({ length: 10 }, (_, i) => (row * 31 + i * 17) % 251);

const range = (chunk: string, fromRow: number, toRow: number): RowRange => {
  const count = toRow - fromRow;
  const pieces = [
    { offset: 3, stride: 8, bytes: 6 },
    { offset: 3 + count * 8, stride: 4, bytes: 4 },
  ];
  return { fromRow, toRow, chunk, pieces };
};
const ranges = [range('b', SPLIT, ROWS), range('a', 0, SPLIT)];

async function writeRows(dir: string, { chunk, fromRow, toRow, pieces }: RowRange): Promise<void> {
  const file = Buffer.alloc(3 + (toRow - fromRow) * 12, 255);
  for (let row = fromRow; row < toRow; row++)
    pieces.reduce((from, { offset, stride, bytes }) => {
      file.set(bytesOf(row).slice(from, from + bytes), offset + (row - fromRow) * stride);
      return from + bytes;
    }, 0);
  await writeFile(join(dir, 'chunks', chunk), file);
}

describe('a table on disk', () => {
  let dir: string;
  let remove: () => Promise<void>;
  let table: RowTable | undefined;
  beforeEach(async () => {
    ({ dir, remove } = await makeFolder());
    await mkdir(join(dir, 'chunks'));
    for (const one of ranges) await writeRows(dir, one);
  });
  afterEach(async () => {
    table?.close();
    table = undefined;
    await remove();
  });
  const open = (cachedRows = 0, over = ranges, rows = ROWS): RowTable => (table = new RowTable('the numbers', rows, over, dir, cachedRows));

  async function rowsOf(from: RowTable, rows: readonly number[]): Promise<number[][]> {
    const found: number[][] = [];
    await from.read(rows, (bytes, place) => void (found[place] = [...bytes]));
    return found;
  }

  it('gives every place its row, whatever is asked together, asked twice or kept, and counts each', async () => {
    const ids = fc.array(fc.integer({ min: 0, max: ROWS - 1 }), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 30 }), fc.array(ids, { maxLength: 6 }), async (cachedRows, calls) => {
        const one = new RowTable('the numbers', ROWS, ranges, dir, cachedRows);
        try {
          for (const rows of calls) {
            expect(await rowsOf(one, rows)).toEqual(rows.map(bytesOf));
            expect(one.cache.size).toBeLessThanOrEqual(cachedRows);
          }
          const { rowsRead, cacheHits, reads, readMs, readMsMax } = one.stats;
          expect(rowsRead + cacheHits).toBe(calls.flat().length);
          expect(rowsRead).toBeGreaterThanOrEqual(cachedRows > 0 ? new Set(calls.flat()).size : 0);
          expect(reads).toBeLessThanOrEqual(calls.length);
          expect(readMs).toBeGreaterThanOrEqual(readMsMax);
          expect(readMsMax > 0).toBe(reads > 0);
        } finally {
          one.close();
        }
      }),
      { numRuns: 40 },
    );
  });

  it('reads a row once where it has room for all, and each time where it has none', async () => {
    const rows = [5, 70, 5, 99];
    const [all, none] = [open(ROWS), new RowTable('the numbers', ROWS, ranges, dir, 0)];
    for (const one of [all, none]) for (let i = 0; i < 2; i++) await rowsOf(one, rows);
    none.close();
    expect(all.stats).toMatchObject({ rowsRead: 3, cacheHits: 5, reads: 1 });
    expect(none.stats).toMatchObject({ rowsRead: 6, cacheHits: 2, reads: 2 });
  });

  it('does not open where rows are in no chunk, naming them', () => {
    expect(() => open(0, [ranges[0]!])).toThrow('no chunk holds rows 0 to 59 of the numbers');
    expect(() => open(0, [ranges[1]!])).toThrow('no chunk holds rows 60 to 99 of the numbers');
    expect(() => open(0, ranges, ROWS + 1)).toThrow('no chunk holds row 100 of the numbers');
    expect(() => open(0, [])).toThrow('no chunk holds rows 0 to 99 of the numbers');
  });

  it('does not open a chunk that is cut off, naming chunk and row', async () => {
    const last = join(dir, 'chunks', 'b');
    await truncate(last, 3 + 40 * 8 + 38 * 4 + 1);
    expect(() => open()).toThrow('chunk b ends inside row 98 of the numbers: 476 bytes do not hold rows 60 to 99');
    await truncate(last, 0);
    expect(() => open()).toThrow('chunk b ends inside row 60 of the numbers: 0 bytes');
  });

  it('says which row it could not read when a chunk shrinks under it, alone and among others, and goes on', async () => {
    const one = open();
    await truncate(join(dir, 'chunks', 'b'), 3 + 40 * 8 + 20 * 4 + 1);
    await expect(rowsOf(one, [80])).rejects.toThrow('chunk b ends inside row 80 of the numbers: 1 of 4 bytes');
    await expect(rowsOf(one, [1, 80, 2, 3])).rejects.toThrow('chunk b ends inside row 80 of the numbers: 1 of 4 bytes');
    await expect(rowsOf(one, [100])).rejects.toThrow('no chunk holds row 100 of the numbers');
    expect(await rowsOf(one, [1, 79])).toEqual([bytesOf(1), bytesOf(79)]);
  });

  it('names chunk and row where the disk refuses', async () => {
    await mkdir(join(dir, 'chunks', 'folder'));
    const folder: RowRange = { fromRow: 0, toRow: 2, chunk: 'folder', pieces: [{ offset: 0, stride: 1, bytes: 1 }] };
    const one = open(0, [folder], 2);
    await expect(rowsOf(one, [1])).rejects.toThrow(/chunk folder: row 1 of the numbers could not be read: EISDIR/);
    await expect(rowsOf(one, [0, 1])).rejects.toThrow(/chunk folder: row [01] of the numbers could not be read: EISDIR/);
  });
});
