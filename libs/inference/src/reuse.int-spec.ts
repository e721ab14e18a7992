import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { prefillChunkTokens, type Manifest } from '@matfleet/model';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Decoder } from './decoder.js';
import type { Engine, GenerateOptions, GenerateResult, PrecisionKind } from './engine-api.js';
import { openEngine } from './engine.js';
import { importCheckpoint } from './import.js';
import { largestDifference, makeFolder, tinyCheckpoint } from './testing-fixture.js';

const nano = fileURLToPath(new URL('../../../models/nano/', import.meta.url));
const tinySlices = [
  { id: 'full', name: 'Full', ffn: Array<number>(20).fill(64), skip: [] },
  { id: 'narrow', name: 'Narrow', ffn: Array<number>(15).fill(32), skip: [10, 11, 12, 13, 14] },
  // Layer 4 owns keys and values.
  { id: 'short', name: 'Short', ffn: Array<number>(19).fill(64), skip: [4] },
];
const nanoSlices = [
  { id: 'full', name: 'Full', ffn: Array<number>(10).fill(512), skip: [] },
  { id: 'narrow', name: 'Narrow', ffn: Array<number>(10).fill(32), skip: [] },
];

type Answer = GenerateResult & { readonly tokenIds: number[]; readonly sliceIds: string[] };
async function run(engine: Engine, promptIds: readonly number[], options: GenerateOptions = {}): Promise<Answer> {
  const [tokenIds, sliceIds]: [number[], string[]] = [[], []];
  const tokens = engine.generate(promptIds, options);
  for (;;) {
    const { done, value } = await tokens.next();
    if (done) return { ...value, tokenIds, sliceIds };
    tokenIds.push(value.tokenId);
    sliceIds.push(value.sliceId);
  }
}

function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

// tiny's random weights magnify the last bits, and its answers hardly repeat themselves.
describe.each([
  { name: 'tiny', source: tinyCheckpoint, precision: 'fp32' as PrecisionKind, slices: tinySlices, leastRight: 1, tolerance: 2e-3 },
  { name: 'nano', source: nano, precision: 'int8' as PrecisionKind, slices: nanoSlices, leastRight: 60, tolerance: 1e-4 },
])('answers of $name that start from earlier ones, or run ahead', ({ source, precision, slices, leastRight, tolerance }) => {
  let manifest: Manifest;
  let storeDir: string;
  let engine: Engine;
  /** Computes every answer from nothing, one token at a time. */
  let plain: Engine;
  let remove: () => Promise<void>;
  const alone: GenerateOptions = { reuse: 'off', draftTokens: 0 };

  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    storeDir = join(folder.dir, 'package');
    manifest = await importCheckpoint({ source, out: storeDir, precision, slices, golden: false });
    manifest.config.eosTokenIds = [];
    const options = { manifest, storeDir, sliceId: 'full', otherSlices: slices.map(({ id }) => id), contextTokens: 256 };
    [engine, plain] = [await openEngine(options), await openEngine(options)];
  });
  afterAll(async () => {
    await engine.close();
    await plain.close();
    await remove();
  });

  const words = (next: (below: number) => number, count: number): number[] =>
    Array.from({ length: count }, () => 4 + next(manifest.config.vocabSize - 4));

  it('gives in random conversations the tokens of a fresh run, turn by turn, and computes only what is new', async () => {
    const next = randomSource(11);
    let reused = 0;
    for (let conversation = 0; conversation < 12; conversation++) {
      let ids = [2, ...words(next, 1 + next(40))];
      let cached: number[] = [];
      for (let turn = 0; turn < 4 && ids.length < 200; turn++) {
        const options = { maxTokens: 1 + next(12), draftTokens: next(2) * 5 };
        const answer = await run(engine, ids, options);
        expect(answer.tokenIds).toEqual((await run(plain, ids, { ...alone, maxTokens: options.maxTokens })).tokenIds);
        expect(answer.promptTokens).toBe(ids.length);
        // All of the turn before but its last token, which was given out and not yet computed.
        expect(answer.cachedPromptTokens).toBeGreaterThanOrEqual(Math.max(0, cached.length - 1));
        if (turn > 0) reused += answer.cachedPromptTokens;
        cached = [...ids, ...answer.tokenIds];
        ids = [...cached, ...words(next, 1 + next(20))];
      }
    }
    expect(reused).toBeGreaterThan(1000);
  });

  it('gives the tokens of a fresh run when a conversation is edited, cut short or asked again', async () => {
    const next = randomSource(5);
    const base = [2, ...words(next, 150)];
    const counts: number[] = [];
    for (let round = 0; round < 18; round++) {
      const kept = round % 3 === 0 ? base.length - next(4) : 1 + next(base.length);
      const ids = [...base.slice(0, kept), ...words(next, next(8))];
      const answer = await run(engine, ids, { maxTokens: 6 });
      expect(answer.tokenIds).toEqual((await run(plain, ids, { ...alone, maxTokens: 6 })).tokenIds);
      counts.push(answer.cachedPromptTokens);
    }
    expect(counts.some((count) => count === 0)).toBe(true);
    expect(counts.some((count) => count > 20)).toBe(true);
  });

  it('starts from another slice only where the caller allows it', async () => {
    const ids = [2, ...words(randomSource(3), 60)];
    const begin = async (): Promise<number[]> => [...ids, ...(await run(engine, ids, { ...alone, maxTokens: 8 })).tokenIds, 9];
    const exact = await run(engine, await begin(), { sliceId: 'narrow', maxTokens: 8 });
    expect(exact.cachedPromptTokens).toBe(0);
    expect(exact.tokenIds).toEqual((await run(plain, await begin(), { ...alone, sliceId: 'narrow', maxTokens: 8 })).tokenIds);
    const any = await run(engine, await begin(), { sliceId: 'narrow', maxTokens: 8, reuse: 'any' });
    expect(any.cachedPromptTokens).toBe(ids.length + 7);
    // What narrow went on from is not full's alone any more.
    expect((await run(engine, [...(await begin()), 9], { ...alone, maxTokens: 1 })).cachedPromptTokens).toBe(0);
    const mixed = await run(engine, ids, { maxTokens: 8, sliceFor: (n) => (n < 4 ? 'full' : 'narrow') });
    expect((await run(engine, [...ids, ...mixed.tokenIds, 9], { maxTokens: 1 })).cachedPromptTokens).toBe(ids.length + 3);
  });

  it('gives the same tokens with drafts, long past the window, and has some of them right', async () => {
    const next = randomSource(23);
    let [drafted, accepted] = [0, 0];
    for (let round = 0; round < 6; round++) {
      const phrase = words(next, 6);
      const ids = [2, ...phrase, ...words(next, next(30)), ...phrase.slice(0, 3)];
      const expected = await run(plain, ids, { ...alone, maxTokens: 120 });
      expect(expected).toMatchObject({ draftedTokens: 0, acceptedTokens: 0 });
      for (const draftTokens of [1, 8]) {
        const answer = await run(engine, ids, { maxTokens: 120, draftTokens });
        expect(answer.tokenIds).toEqual(expected.tokenIds);
        expect(answer.text).toBe(expected.text);
        expect(answer.acceptedTokens).toBeLessThanOrEqual(answer.draftedTokens);
        drafted += answer.draftedTokens;
        accepted += answer.acceptedTokens;
      }
    }
    expect(accepted).toBeGreaterThanOrEqual(leastRight);
    expect(drafted).toBeGreaterThan(accepted); // so that wrong ones were taken back, too
  });

  it('ends a draft where the answer ends: at its length, a full context, a stop token, an abort', async () => {
    // An answer that repeats itself, so that drafts are right when they are cut.
    const ids = [2, 9, 40, 41, 9, 40, 41, 9, 40];
    const expected = (await run(plain, ids, { ...alone, maxTokens: 60 })).tokenIds;
    for (let maxTokens = 1; maxTokens <= 60; maxTokens += 7)
      expect(await run(engine, ids, { draftTokens: 8, maxTokens })).toMatchObject({
        reason: 'max-tokens',
        outputTokens: maxTokens,
        tokenIds: expected.slice(0, maxTokens),
      });

    const small = await openEngine({ manifest, storeDir, sliceId: 'full', contextTokens: 40 });
    const filled = await run(small, ids, { draftTokens: 8 });
    await small.close();
    expect(filled).toMatchObject({ reason: 'context-full', tokenIds: expected.slice(0, 40 - ids.length + 1) });

    const stop = expected[40]!;
    const stopping = await openEngine({
      manifest: { ...manifest, config: { ...manifest.config, eosTokenIds: [stop] } },
      storeDir,
      sliceId: 'full',
      contextTokens: 256,
    });
    const stopped = await run(stopping, ids, { draftTokens: 8 });
    await stopping.close();
    expect(stopped).toMatchObject({ reason: 'stop', tokenIds: expected.slice(0, expected.indexOf(stop)) });

    for (let tokens = 20; tokens < 26; tokens++) {
      const abort = new AbortController();
      const answer = engine.generate(ids, { draftTokens: 8, signal: abort.signal });
      for (let i = 0; i < tokens; i++) await answer.next();
      abort.abort();
      expect(await answer.next()).toMatchObject({ done: true, value: { reason: 'cancelled', outputTokens: tokens } });
    }
    expect((await run(engine, [...ids, ...expected.slice(0, 30)], { maxTokens: 30 })).tokenIds).toEqual(expected.slice(30));
  });

  it.each(['keep', 'prefill'] as const)('changes slice in the middle of a draft as without one, %s', async (onSwitch) => {
    const ids = [2, 9, 40, 41, 9, 40, 41, 9, 40];
    const other = slices.at(-1)!.id;
    for (const period of [5, 7]) {
      const options: GenerateOptions = {
        maxTokens: 60,
        onSwitch,
        reuse: 'off',
        sliceFor: (n) => (Math.floor(n / period) % 2 === 0 ? 'full' : other),
      };
      const expected = await run(plain, ids, options);
      const answer = await run(engine, ids, { ...options, draftTokens: 6 });
      expect(answer.tokenIds).toEqual(expected.tokenIds);
      expect(answer.sliceIds).toEqual(expected.sliceIds);
      if (leastRight > 1) expect(answer.draftedTokens).toBeGreaterThan(0);
    }
  });

  it('drafts nothing where tokens are drawn, and refuses more than a pass takes', async () => {
    const drawn = await run(engine, [2, 9, 9, 9], { maxTokens: 8, draftTokens: 4, sampling: { seed: 1 } });
    expect(drawn.draftedTokens).toBe(0);
    const chunk = prefillChunkTokens(manifest.config);
    await expect(run(engine, [2], { draftTokens: chunk })).rejects.toThrow(`draftTokens is ${chunk}; this model takes 0 to ${chunk - 1}`);
    await expect(run(engine, [2], { draftTokens: 1.5 })).rejects.toThrow('draftTokens is 1.5');
  });

  it('computes after going back what it would have computed anyway, bit for bit, and in passes of any length nearly what single steps do', async () => {
    const next = randomSource(31);
    const decoder = await Decoder.open(manifest, storeDir, slices[0]!);
    const ids = [2, ...words(next, 99)];
    const chunk = prefillChunkTokens(manifest.config);
    const [steps, straight, back] = [decoder.newCache(256, chunk), decoder.newCache(256, chunk), decoder.newCache(256, chunk)];
    const identical: number[] = [];
    let largest = 0;
    while (back.length < ids.length) {
      const at = back.length;
      const pass = ids.slice(at, at + 1 + next(8));
      // A draft of which some tokens are wrong, computed and taken back.
      await decoder.forward([...pass, ...words(next, 3)], back, pass.length + 3);
      back.rollBack(at);
      const copy = (rows: Float32Array[]): Float32Array[] => rows.map((row) => row.slice());
      const again = copy(await decoder.forward(pass, back, pass.length));
      const once = largestDifference(again, copy(await decoder.forward(pass, straight, pass.length)));
      // Attention sums in another order where the longer pass moved the window earlier.
      expect(once).toBeLessThan(tolerance);
      if (back.slidingLength === straight.slidingLength) identical.push(once);
      const single: Float32Array[] = [];
      for (const id of pass) single.push(...copy(await decoder.forward([id], steps)));
      largest = Math.max(largest, largestDifference(again, single));
    }
    await decoder.close();
    expect(identical.length).toBeGreaterThan(5);
    expect(Math.max(...identical)).toBe(0);
    expect(largest).toBeLessThan(tolerance);
  });
});
