import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { publishedShapes, type ModelConfig } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { readModelConfig } from './checkpoint.js';
import { importCheckpoint } from './import.js';
import { openLogits } from './logits.js';
import { synthCheckpoint, synthPackage } from './synth.js';
import { withFolder } from './testing-fixture.js';

/** E2B's structure, small. */
const small: ModelConfig = {
  ...publishedShapes.e2b,
  vocabSize: 300,
  vocabSizePerLayerInput: 280,
  hiddenSize: 64,
  hiddenSizePerLayerInput: 32,
  intermediateSize: Array<number>(30).fill(128),
  headDim: 16,
  laurelRank: 16,
};

describe('a model of random weights', () => {
  it('is the same package whether it is written directly or imported from its own checkpoint', () =>
    withFolder(async (dir) => {
      await synthCheckpoint({ shape: small, out: join(dir, 'checkpoint') });
      const terms = { precision: 'int4', block: 32 } as const;
      const direct = await synthPackage({ shape: small, out: join(dir, 'direct'), ...terms });
      const imported = await importCheckpoint({ source: join(dir, 'checkpoint'), out: join(dir, 'imported'), ...terms });
      expect(imported.chunks).toEqual(direct.chunks);
      expect(await readModelConfig(join(dir, 'checkpoint'))).toEqual(small);
      expect(imported.golden).toHaveLength(1);
    }));

  it('differs by seed, and answers with finite logits that depend on every token', () =>
    withFolder(async (dir) => {
      const one = await synthPackage({ shape: small, out: join(dir, 'one'), precision: 'int8' });
      const two = await synthPackage({ shape: small, out: join(dir, 'two'), precision: 'int8', seed: 2 });
      expect(one.chunks[0]!.id).not.toBe(two.chunks[0]!.id);
      const model = await openLogits({ source: join(dir, 'one') });
      const [a] = await model.logits([2, 5, 9], { last: true });
      const [b] = await model.logits([2, 6, 9], { last: true });
      await model.close();
      expect(a!.every(Number.isFinite)).toBe(true);
      expect(a).not.toEqual(b);
    }));

  it('leaves nothing behind when it is interrupted, and refuses to overwrite', () =>
    withFolder(async (dir) => {
      for (const synth of [synthCheckpoint, (o: Parameters<typeof synthCheckpoint>[0]) => synthPackage({ ...o, precision: 'int4' })]) {
        const abort = new AbortController();
        const out = join(dir, 'new');
        await expect(synth({ shape: small, out, signal: abort.signal, onProgress: () => abort.abort() })).rejects.toThrow(/abort/i);
        await expect(synth({ shape: small, out: dir })).rejects.toThrow(`${dir} already exists`);
        expect(await readdir(dir)).toEqual([]);
      }
    }));
});
