import type { ModelConfig } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { KvCache } from './kv-cache.js';
import { reusablePositions } from './prefix-reuse.js';

const WINDOW = 8;
const PASS = 8;
const config = { slidingWindow: WINDOW, numKeyValueHeads: 2, headDim: 4 } as ModelConfig;
const layers = [
  { layer: 0, sliding: true },
  { layer: 1, sliding: false },
];
const full = { shape: 'full', layers: [0, 1] };
const short = { shape: 'short', layers: [1] };

/** A cache whose sliding rows carry their position, as a pass would write them. */
async function filled(cache = new KvCache(config, layers, 200, PASS), count = 0, by = full, from = cache.length): Promise<KvCache> {
  for (let at = 0; at < count; at++) {
    await cache.prepare(1);
    const key = cache.feeds([0])['past.0.key']!.data as Float32Array;
    for (let head = 0; head < 2; head++)
      key.fill(from + at, (head * cache.slidingCapacity + cache.slidingLength) * 4, (head * cache.slidingCapacity + cache.slidingLength + 1) * 4);
    cache.advance([from + at], by);
  }
  return cache;
}
/** Positions that the sliding layer holds, oldest first, by head. */
function held(cache: KvCache): number[][] {
  const key = cache.feeds([0])['past.0.key']!.data as Float32Array;
  return [0, 1].map((head) => Array.from({ length: cache.slidingLength }, (_, i) => key[(head * cache.slidingCapacity + i) * 4]!));
}

describe('a cache', () => {
  it('takes the last pass back, however long ago it was moved, and holds the window before it', async () => {
    for (let length = PASS; length < 100; length++) {
      const cache = await filled(undefined, length);
      for (let pass = 1; pass <= PASS; pass++) {
        await cache.prepare(pass);
        cache.advance(Array<number>(pass).fill(-1), full);
        cache.rollBack(length);
        const window = Math.min(length, WINDOW - 1);
        const expected = Array.from({ length: window }, (_, i) => length - window + i);
        for (const row of held(cache)) expect(row.slice(-window)).toEqual(expected);
      }
    }
  });

  it('refuses to go back further than its sliding layers hold a window, except to nothing', async () => {
    const cache = await filled(undefined, 60);
    const back = Array.from({ length: 61 }, (_, length) => length).filter((length) => cache.reaches(length));
    expect(back[0]).toBe(0);
    expect(back.slice(1)).toEqual(Array.from({ length: back.length - 1 }, (_, i) => 60 - (back.length - 2) + i));
    expect(back.length - 1).toBe(cache.slidingLength - (WINDOW - 1) + 1);
    expect(cache.reaches(61)).toBe(false);
    expect(() => cache.rollBack(30)).toThrow(`back from 60 to 30 positions; sliding layers hold the last ${cache.slidingLength}`);
    cache.rollBack(0);
    expect([cache.length, cache.slidingLength]).toEqual([0, 0]);
  });

  it('refuses a pass that is longer than it was made for', async () => {
    await expect((await filled(undefined, 20)).prepare(PASS + 1)).rejects.toThrow('a pass over 9 positions; the cache was made for 8');
    await expect((await filled(new KvCache(config, layers, 10, PASS), 6)).prepare(5)).rejects.toThrow('6 + 5 positions exceed the context of 10');
  });

  it('forgets who computed what was taken back', async () => {
    const cache = await filled(await filled(await filled(undefined, 4), 3, short), 2);
    expect(cache.holds([0, 1])).toBe(false);
    expect(cache.holds([1])).toBe(true);
    cache.rollBack(5);
    expect(cache.leading(({ shape }) => shape === 'full')).toBe(4);
    expect(cache.leading(() => true)).toBe(5);
    cache.rollBack(4);
    expect(cache.holds([0, 1])).toBe(true);
  });
});

describe('what a prompt may start from', () => {
  const prompt = (...ids: number[]): number[] => ids;

  it('is the common beginning, without the last token of the prompt', async () => {
    const cache = await filled(undefined, 6); // tokens 0 to 5
    expect(reusablePositions(cache, prompt(0, 1, 2, 3, 4, 5, 6, 7), full, 'exact')).toBe(6);
    expect(reusablePositions(cache, prompt(0, 1, 2, 3, 4, 5), full, 'exact')).toBe(5);
    expect(reusablePositions(cache, prompt(0, 1, 9, 3), full, 'exact')).toBe(2);
    expect(reusablePositions(cache, prompt(0), full, 'exact')).toBe(0);
    expect(reusablePositions(cache, prompt(0, 1, 2, 3), full, 'off')).toBe(0);
  });

  it('ends where another slice took over, unless any will do that computed the layers', async () => {
    const cache = await filled(await filled(await filled(undefined, 3), 2, { shape: 'narrow', layers: [0, 1] }), 2, short);
    const ids = prompt(0, 1, 2, 3, 4, 5, 6, 7, 8);
    expect(reusablePositions(cache, ids, full, 'exact')).toBe(3);
    expect(reusablePositions(cache, ids, full, 'any')).toBe(5);
    expect(reusablePositions(cache, ids, short, 'any')).toBe(7);
    expect(reusablePositions(cache, ids, short, 'exact')).toBe(0);
  });

  it('is nothing where the sliding layers have moved on', async () => {
    const cache = await filled(undefined, 60);
    const early = [...Array(30).keys(), 99];
    expect(reusablePositions(cache, early, full, 'exact')).toBe(0);
    const late = [...Array(59).keys(), 99];
    expect(reusablePositions(cache, late, full, 'exact')).toBe(59);
  });
});
