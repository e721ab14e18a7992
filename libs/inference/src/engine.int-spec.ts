import { join } from 'node:path';
import { type Manifest } from '@matfleet/model';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Engine, GenerateOptions, GenerateResult } from './engine-api.js';
import { openEngine } from './engine.js';
import { importCheckpoint } from './import.js';
import { openLogits } from './logits.js';
import { createSampler } from './sampler.js';
import { tinyCheckpoint, makeFolder } from './testing-fixture.js';

const LAYERS = 20;
const full = { id: 'full', name: 'Full', ffn: Array<number>(LAYERS).fill(64), skip: [] };
const narrow = { id: 'narrow', name: 'Narrow', ffn: Array<number>(15).fill(32), skip: [10, 11, 12, 13, 14] };
/** Longer than one prefill chunk and several windows. */
const longPrompt = [2, ...Array.from({ length: 69 }, (_, i) => 4 + ((i * 37) % 240))];

async function run(engine: Engine, promptIds: readonly number[], options: GenerateOptions = {}): Promise<GenerateResult & { tokenIds: number[] }> {
  const tokenIds: number[] = [];
  const tokens = engine.generate(promptIds, options);
  for (;;) {
    const { done, value } = await tokens.next();
    if (done) return { ...value, tokenIds };
    tokenIds.push(value.tokenId);
  }
}

describe('an engine', () => {
  let manifest: Manifest;
  let storeDir: string;
  let remove: () => Promise<void>;
  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    storeDir = join(folder.dir, 'package');
    manifest = await importCheckpoint({ source: tinyCheckpoint, out: storeDir, precision: 'fp32', slices: [full, narrow] });
    // No stop token, so that lengths are known.
    manifest.config.eosTokenIds = [];
  });
  afterAll(async () => {
    await remove();
  });

  const withEngine = async <T>(options: Partial<Parameters<typeof openEngine>[0]>, use: (engine: Engine) => Promise<T>): Promise<T> => {
    const engine = await openEngine({ manifest, storeDir, sliceId: 'full', ...options });
    try {
      return await use(engine);
    } finally {
      await engine.close();
    }
  };

  it.each(['full', 'narrow'])('continues a prompt of three prefill chunks like passes over the whole sequence, slice %s', async (sliceId) => {
    const answer = await withEngine({ sliceId }, (engine) => run(engine, longPrompt, { maxTokens: 12 }));
    expect(answer).toMatchObject({ reason: 'max-tokens', outputTokens: 12, promptTokens: 70 });
    const model = await openLogits({ source: storeDir, sliceId });
    const choose = createSampler(undefined, model.config);
    const all = [...longPrompt];
    for (let i = 0; i < 12; i++) all.push(choose((await model.logits(all, { last: true }))[0]!));
    await model.close();
    expect(answer.tokenIds).toEqual(all.slice(70));
  });

  it('reproduces the golden answers of its manifest', async () => {
    for (const { sliceId, promptIds, tokenIds } of manifest.golden) {
      const answer = await withEngine({ sliceId }, (engine) => run(engine, promptIds, { maxTokens: tokenIds.length }));
      expect(answer.tokenIds).toEqual(tokenIds);
    }
  });

  it.each(['never', 'pass', 'always'] as const)('answers the same with two threads that spin: %s', async (spinning) => {
    const want = await withEngine({ threads: 1 }, (engine) => run(engine, longPrompt, { maxTokens: 12 }));
    const got = await withEngine({ threads: 2, spinning }, (engine) => run(engine, longPrompt, { maxTokens: 12 }));
    expect(got.tokenIds).toEqual(want.tokenIds);
  });

  it('stops at a stop token without giving it out, and when the context is full', async () => {
    const greedy = await withEngine({}, (engine) => run(engine, [2, 9, 40], { maxTokens: 6 }));
    const stop = greedy.tokenIds.at(-1)!;
    const first = greedy.tokenIds.indexOf(stop);
    const stopping = { ...manifest, config: { ...manifest.config, eosTokenIds: [stop] } };
    const stopped = await withEngine({ manifest: stopping }, (engine) => run(engine, [2, 9, 40]));
    expect(stopped).toMatchObject({ reason: 'stop', outputTokens: first, tokenIds: greedy.tokenIds.slice(0, first) });

    const filled = await withEngine({ contextTokens: 7 }, (engine) => run(engine, [2, 9, 40]));
    expect(filled.reason).toBe('context-full');
    expect(filled.tokenIds.slice(0, 4)).toEqual(greedy.tokenIds.slice(0, 4));
    expect(filled.outputTokens).toBe(5);
  });

  it('refuses prompts that cannot be computed, with the numbers', async () => {
    await withEngine({ contextTokens: 16 }, async (engine) => {
      await expect(run(engine, [])).rejects.toThrow('the prompt is empty');
      await expect(run(engine, longPrompt)).rejects.toThrow('the prompt has 70 tokens, the context holds 16');
      await expect(run(engine, [2, 300])).rejects.toThrow('token id 300 is outside the vocabulary of 300');
      await expect(run(engine, [2], { maxTokens: 0 })).rejects.toThrow('maxTokens is 0');
      expect(() => engine.tokenize([{ role: 'user', text: 'hello' }])).toThrow('has no tokenizer');
      expect((await run(engine, [2], { maxTokens: 2 })).outputTokens).toBe(2);
    });
    await expect(openEngine({ manifest, storeDir, sliceId: 'full', contextTokens: 257 })).rejects.toThrow(
      'a context of 257 tokens; model tiny-gemma3n takes 1 to 256',
    );
  });

  it('stops within a token of an abort and is free for the next inference', async () => {
    await withEngine({}, async (engine) => {
      const stop = new AbortController();
      const tokens = engine.generate([2, 9], { signal: stop.signal });
      await tokens.next();
      await tokens.next();
      await expect(engine.generate([2]).next()).rejects.toThrow('one inference at a time');
      stop.abort();
      expect(await tokens.next()).toMatchObject({ done: true, value: { reason: 'cancelled', outputTokens: 2 } });
      const abandoned = engine.generate([2, 9]);
      await abandoned.next();
      await abandoned.return(undefined as never);
      expect((await run(engine, [2, 9], { maxTokens: 1 })).reason).toBe('max-tokens');
    });
  });

  it('gives the same answer to the same seed and others to others', async () => {
    await withEngine({}, async (engine) => {
      const sample = async (seed: number) => (await run(engine, [2, 9], { maxTokens: 16, sampling: { seed, temperature: 1.5 } })).tokenIds.join();
      const answers = [await sample(1), await sample(1), await sample(2), await sample(3)];
      expect(answers[0]).toBe(answers[1]);
      expect(new Set(answers).size).toBeGreaterThan(1);
    });
  });

  it('keeps embedding rows within the bytes it was given and reads the others from disk again', async () => {
    // The full slice reads from two planes: the layers that the narrow one lacks are stored apart.
    const planes = 2;
    const distinct = new Set(longPrompt).size;
    const spent = (hotRowBytes: number) =>
      withEngine({ hotRowBytes }, async (engine) => {
        const tokens: string[] = [];
        for (let i = 0; i < 2; i++) tokens.push((await run(engine, longPrompt, { maxTokens: 1, reuse: 'off' })).tokenIds.join());
        return { tokens, ...engine.stats() };
      });
    const [none, tight, ample] = [await spent(0), await spent(8_192), await spent(2 ** 20)];
    expect(tight.tokens).toEqual(ample.tokens);
    expect(none).toMatchObject({ tokens: ample.tokens, hotRowBytes: 0, pleRowsCached: 0 });
    expect(tight.hotRowBytes).toBeLessThanOrEqual(8_192);
    expect(tight.pleRowsCached).toBeGreaterThan(0);
    expect(tight.pleRowsRead).toBe(2 * longPrompt.length * planes);
    // Three chunks of the prompt, twice, from each plane.
    expect(tight.pleReads).toBe(2 * 3 * planes);
    expect(tight.pleReadMs).toBeGreaterThanOrEqual(tight.pleReadMsMax);
    expect(ample.pleRowsRead).toBe(distinct * planes);
    expect(ample.pleRowsRead + ample.pleCacheHits).toBe(2 * longPrompt.length * planes);
  });
});
