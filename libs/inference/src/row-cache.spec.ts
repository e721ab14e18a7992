import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { RowCache } from './row-cache.js';

const ROW_BYTES = 5;
const bytesOf = (row: number): Uint8Array => Uint8Array.from({ length: ROW_BYTES }, (_, i) => row * 7 + i);

describe('a cache of rows', () => {
  it('holds the rows used last, each with its own bytes, in the room it began with', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 6 }), fc.array(fc.integer({ min: 0, max: 12 }), { maxLength: 60 }), (most, rows) => {
        const cache = new RowCache(ROW_BYTES, most);
        let lastUsed: number[] = [];
        for (const row of rows) {
          const found = cache.get(row);
          expect(found !== undefined).toBe(lastUsed.includes(row));
          if (found) expect([...found]).toEqual([...bytesOf(row)]);
          cache.set(row, bytesOf(row));
          lastUsed = [row, ...lastUsed.filter((other) => other !== row)].slice(0, most);
          expect(cache.size).toBe(lastUsed.length);
          expect(cache.bytes).toBe(most * ROW_BYTES);
        }
      }),
    );
  });
});
