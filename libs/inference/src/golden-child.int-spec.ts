import { join } from 'node:path';
import { readdir, readFile } from 'node:fs/promises';
import { publishedShapes, type Manifest, type ModelConfig } from '@matfleet/model';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { openEngine } from './engine.js';
import type { ImportProgress } from './engine-api.js';
import { goldenInChild, type GoldenChildOptions } from './golden-child.js';
import { synthPackage } from './synth.js';
import { makeFolder } from './testing-fixture.js';

/** E4B's structure, with matrices just large enough to be mapped. */
const config: ModelConfig = {
  ...publishedShapes.e4b,
  vocabSize: 512,
  vocabSizePerLayerInput: 512,
  hiddenSize: 512,
  hiddenSizePerLayerInput: 32,
  numHiddenLayers: 4,
  numKvSharedLayers: 1,
  intermediateSize: Array<number>(4).fill(1024),
  layerTypes: publishedShapes.e4b.layerTypes.slice(0, 4),
  activationSparsityPattern: publishedShapes.e4b.activationSparsityPattern.slice(0, 4),
  headDim: 64,
};

describe('golden answers made in a process of their own', () => {
  let manifest: Manifest;
  let storeDir: string;
  let remove: () => Promise<void>;
  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    storeDir = join(folder.dir, 'package');
    manifest = await synthPackage({ shape: config, out: storeDir, precision: 'int4', block: 64 });
    manifest.slices.push({ ...manifest.slices[0]!, id: 'short', name: 'Short', ffn: Array<number>(3).fill(1024), skip: [3] });
  });
  afterAll(() => remove());

  const make = (over: Partial<GoldenChildOptions> = {}) =>
    goldenInChild({ manifest, storeDir }, { onProgress: () => {}, entry: new URL('../dist/golden-process.js', import.meta.url), ...over });
  const children = async (): Promise<string[]> =>
    (await readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').catch(() => '')).split(' ').filter(Boolean);

  it('are what an engine says that packs its weights in memory, slice by slice, and leave nothing packed behind', async () => {
    const steps: ImportProgress[] = [];
    const golden = await make({ onProgress: (progress) => steps.push(progress) });
    expect(golden.map(({ sliceId }) => sliceId)).toEqual(['full', 'short']);
    for (const { sliceId, promptIds, tokenIds } of golden) {
      const engine = await openEngine({ manifest, storeDir, sliceId, contextTokens: 64 });
      const own: number[] = [];
      for await (const { tokenId } of engine.generate(promptIds, { maxTokens: 8 })) own.push(tokenId);
      await engine.close();
      expect(tokenIds).toEqual(own);
    }
    expect([...new Set(steps.map(({ step }) => step))]).toEqual(['packing', 'golden']);
    expect((await readdir(storeDir)).sort()).toEqual(['chunks', 'manifest.json']);
  });

  it('end at once with their process when the import is interrupted', async () => {
    const before = await children();
    const interrupt = new AbortController();
    const abort = (): void => interrupt.abort(new Error('interrupted'));
    await expect(make({ signal: interrupt.signal, onProgress: abort })).rejects.toThrow('interrupted');
    expect(await children()).toEqual(before);
  });

  it('fail with what happened and where when the process is killed or makes no progress', async () => {
    await expect(make({ stallMs: 20 })).rejects.toThrow(
      'the process that makes the golden answers made no progress for 20 ms and was killed while it started',
    );
    const before = await children();
    const kill = async ({ step }: ImportProgress): Promise<void> => {
      if (step === 'packing') for (const pid of await children()) if (!before.includes(pid)) process.kill(Number(pid), 'SIGKILL');
    };
    await expect(make({ onProgress: (progress) => void kill(progress) })).rejects.toThrow(
      /was ended by SIGKILL while \d+ of \d+ MB were packed\. An import without golden answers does not need it\.$/,
    );
  });

  it('fail with the reason that the process gives', async () => {
    const chunks = manifest.chunks.filter(({ part }) => part.kind !== 'core');
    await expect(
      goldenInChild(
        { manifest: { ...manifest, chunks }, storeDir },
        { onProgress: () => {}, entry: new URL('../dist/golden-process.js', import.meta.url) },
      ),
    ).rejects.toThrow(/^the golden answers failed: /);
  });
});
