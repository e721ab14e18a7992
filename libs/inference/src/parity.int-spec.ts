import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { LogitsModel } from './engine-api.js';
import { openLogits } from './logits.js';
import { createSampler } from './sampler.js';
import { largestDifference, tinyCheckpoint } from './testing-fixture.js';

interface Case {
  name: string;
  ffn_dims: number[];
  layers_skipped: number[];
  logits: number[][];
  cached_logits: number[][];
  greedy: number[];
}
const expected = JSON.parse(readFileSync(join(tinyCheckpoint, 'expected.json'), 'utf8')) as { token_ids: number[]; cases: Case[] };
const TOLERANCE = 2e-3;

describe.each(expected.cases)('the $name slice against the reference implementation, float32', (reference) => {
  const ids = expected.token_ids;
  let model: LogitsModel;
  beforeAll(async () => {
    model = await openLogits({ source: tinyCheckpoint, ffn: reference.ffn_dims, skip: reference.layers_skipped });
  });
  afterAll(() => model.close());

  it('gives the same logits in one pass', async () => {
    expect(largestDifference(await model.logits(ids), reference.logits)).toBeLessThan(TOLERANCE);
    expect(model.sharedLayerPositions.every((count) => count === ids.length)).toBe(true);
  });

  it.each([1, 3, 7, 8, 9, 20])('gives the same logits from the cache after a prefill of %i', async (prefill) => {
    expect(largestDifference(await model.logits(ids, { prefill }), prefill === 7 ? reference.cached_logits : reference.logits)).toBeLessThan(
      TOLERANCE,
    );
  });

  it('gives the last position through the prefill cut: sharing layers compute one position', async () => {
    expect(largestDifference(await model.logits(ids, { last: true }), reference.logits.slice(-1))).toBeLessThan(TOLERANCE);
    const sharing = 10 - reference.layers_skipped.length;
    expect(model.sharedLayerPositions).toEqual(Array(sharing).fill(1));
  });

  it('continues with the same twelve greedy tokens', async () => {
    const choose = createSampler(undefined, model.config);
    const all = [...ids];
    for (let i = 0; i < reference.greedy.length; i++) all.push(choose((await model.logits(all, { last: true }))[0]!));
    expect(all.slice(ids.length)).toEqual(reference.greedy);
  });
});
