import { join } from 'node:path';
import { type Manifest } from '@matfleet/model';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Engine, GenerateOptions } from './engine-api.js';
import { openEngine } from './engine.js';
import { importCheckpoint } from './import.js';
import { tinyCheckpoint, makeFolder } from './testing-fixture.js';

const slices = [
  { id: 'full', name: 'Full', ffn: Array<number>(20).fill(64), skip: [] },
  { id: 'narrow', name: 'Narrow', ffn: Array<number>(15).fill(32), skip: [10, 11, 12, 13, 14] },
  { id: 'one-wide', name: 'One wide', ffn: [64, ...Array<number>(14).fill(32)], skip: [10, 11, 12, 13, 14] },
  // Layer 4 owns keys and values.
  { id: 'short', name: 'Short', ffn: Array<number>(19).fill(64), skip: [4] },
];
const ids = slices.map(({ id }) => id);
const prompt = [2, ...Array.from({ length: 40 }, (_, i) => 4 + ((i * 37) % 240))];

describe('an answer that changes slice', () => {
  let manifest: Manifest;
  let storeDir: string;
  let engine: Engine;
  let remove: () => Promise<void>;
  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    storeDir = join(folder.dir, 'package');
    manifest = await importCheckpoint({ source: tinyCheckpoint, out: storeDir, precision: 'fp32', slices, golden: false });
    manifest.config.eosTokenIds = [];
    engine = await openEngine({ manifest, storeDir, sliceId: 'full', otherSlices: ids });
  });
  afterAll(async () => {
    await engine.close();
    await remove();
  });

  async function answer(promptIds: readonly number[], options: GenerateOptions, by = engine): Promise<{ tokenIds: number[]; sliceIds: string[] }> {
    const [tokenIds, sliceIds]: [number[], string[]] = [[], []];
    for await (const token of by.generate(promptIds, { maxTokens: 8, ...options })) {
      tokenIds.push(token.tokenId);
      sliceIds.push(token.sliceId);
    }
    return { tokenIds, sliceIds };
  }
  /** What the slice says alone, in an engine of its own. */
  async function alone(sliceId: string, promptIds: readonly number[], maxTokens: number): Promise<number[]> {
    const own = await openEngine({ manifest, storeDir, sliceId });
    try {
      return (await answer(promptIds, { maxTokens }, own)).tokenIds;
    } finally {
      await own.close();
    }
  }

  it.each(ids)('answers with slice %s where the request names it, like an engine of that slice alone', async (sliceId) => {
    const { tokenIds, sliceIds } = await answer(prompt, { sliceId });
    expect(tokenIds).toEqual(await alone(sliceId, prompt, 8));
    expect(new Set(sliceIds)).toEqual(new Set([sliceId]));
  });

  it('goes on exactly like a fresh run of the new slice when it prefills', async () => {
    const { tokenIds, sliceIds } = await answer(prompt, { sliceFor: (n) => (n < 3 ? 'full' : 'narrow'), onSwitch: 'prefill' });
    expect(sliceIds).toEqual(['full', 'full', 'full', 'narrow', 'narrow', 'narrow', 'narrow', 'narrow']);
    const before = await alone('full', prompt, 3);
    expect(tokenIds).toEqual([...before, ...(await alone('narrow', [...prompt, ...before], 5))]);
  });

  it('keeps the context without reading it again when it keeps keys and values', async () => {
    const rows = (): number => engine.stats().pleRowsRead + engine.stats().pleCacheHits;
    const cost = async (onSwitch: 'keep' | 'prefill'): Promise<number> => {
      const before = rows();
      await answer(prompt, { sliceFor: (n) => (n % 2 === 0 ? 'narrow' : 'one-wide'), sliceId: 'narrow', onSwitch, reuse: 'off' });
      return rows() - before;
    };
    // One row a token and plane; layer 4, which one slice skips, lies in a plane of its own, and both slices here read that one and the base plane.
    expect(await cost('keep')).toBe(2 * (prompt.length + 7));
    expect(await cost('prefill')).toBeGreaterThan(2 * 7 * prompt.length);
  });

  it('prefills where the kept context lacks a layer of the new slice, whatever was asked for', async () => {
    const { tokenIds } = await answer(prompt, { sliceId: 'short', sliceFor: (n) => (n < 2 ? 'short' : 'full'), onSwitch: 'keep' });
    const before = await alone('short', prompt, 2);
    expect(tokenIds).toEqual([...before, ...(await alone('full', [...prompt, ...before], 6))]);
  });

  it('changes slice at every token for longer than several windows and stays reproducible', async () => {
    const options: GenerateOptions = { maxTokens: 150, sliceFor: (n) => ids[n % 3]!, sliceId: ids[0]! };
    const first = await answer([2, 9], options);
    expect(first.tokenIds).toHaveLength(150);
    expect(first.sliceIds.slice(0, 4)).toEqual(['full', 'narrow', 'one-wide', 'full']);
    expect((await answer([2, 9], options)).tokenIds).toEqual(first.tokenIds);
  });

  it('has at most the allowed slices open, loads others when they are used, and refuses what it was not opened with', async () => {
    const tight = await openEngine({ manifest, storeDir, sliceId: 'full', otherSlices: ['narrow', 'one-wide'], mostOpenSlices: 2 });
    try {
      expect(tight.openSlices).toEqual(['full']);
      await tight.loadSlice('narrow');
      expect([...tight.openSlices].sort()).toEqual(['full', 'narrow']);
      expect((await answer(prompt, { sliceFor: (n) => ids[n % 3]!, maxTokens: 6 }, tight)).tokenIds).toEqual(
        (await answer(prompt, { sliceFor: (n) => ids[n % 3]!, maxTokens: 6 })).tokenIds,
      );
      expect(tight.openSlices).toHaveLength(2);
      await expect(answer(prompt, { sliceId: 'short' }, tight)).rejects.toThrow('slice "short" is not one of this engine\'s: full, narrow, one-wide');
      expect((await answer(prompt, {}, tight)).tokenIds).toHaveLength(8);
    } finally {
      await tight.close();
    }
  });
});
