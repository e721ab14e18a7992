import { mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { synthPackage } from '@matfleet/inference';
import { largestMatrixBytes, mappedBytes, publishedShapes, type Manifest } from '@matfleet/model';
import { createEngineHost } from './child-engine-host.js';
import { prepareSlice, type PrepareLimits, type PrepareTask } from './prepare-slice.js';

const GB = 1e9;
const entry = new URL('../../dist/engine/prepare-process.js', import.meta.url);

describe('preparing a slice in a process of its own', () => {
  let dir: string;
  let storeDir: string;
  let manifest: Manifest;
  let task: PrepareTask;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'matfleet-prepare-'));
    storeDir = join(dir, 'store');
    // E4B's structure, with matrices just large enough to be mapped.
    const layers = 6;
    const e4b = publishedShapes.e4b;
    manifest = await synthPackage({
      shape: {
        ...e4b,
        vocabSize: 512,
        vocabSizePerLayerInput: 512,
        hiddenSize: 512,
        hiddenSizePerLayerInput: 32,
        numHiddenLayers: layers,
        numKvSharedLayers: 1,
        intermediateSize: Array<number>(layers).fill(1024),
        layerTypes: e4b.layerTypes.slice(0, layers),
        activationSparsityPattern: e4b.activationSparsityPattern.slice(0, layers),
        headDim: 64,
      },
      out: storeDir,
      precision: 'int4',
    });
    task = { storeDir, slices: [{ manifestPath: join(storeDir, 'manifest.json'), sliceId: 'full' }] };
  }, 60_000);
  afterAll(() => rm(dir, { recursive: true, force: true }));
  beforeEach(() => rm(join(storeDir, 'prepared'), { recursive: true, force: true }));

  const limits = (over: Partial<PrepareLimits> = {}): PrepareLimits => ({
    mappedBytes: mappedBytes(manifest, manifest.slices[0]!),
    largestMatrixBytes: largestMatrixBytes(manifest, manifest.slices[0]!),
    availableBytes: 4 * GB,
    entry,
    ...over,
  });
  const prepared = () => readdir(join(storeDir, 'prepared')).catch(() => []);

  it('packs once, sweeps what interrupted runs left, and an engine answers the same with it and without', async () => {
    const host = createEngineHost({ modelMemoryBytes: 0, availableMemoryBytes: () => 4 * GB, entry: new URL('./engine-process.js', entry) });
    const answer = async (): Promise<number[]> => {
      const [{ manifestPath }] = task.slices as [PrepareTask['slices'][number]];
      const engine = await host.start({ modelVersionId: 'v1', modelName: 'random', sliceId: 'full', manifestPath, storeDir, contextTokens: 64 });
      try {
        return (await engine.golden([2, 40, 300], 12)).tokenIds;
      } finally {
        await engine.stop();
      }
    };
    const before = await answer();
    await rm(join(storeDir, 'prepared'), { recursive: true, force: true });
    expect(await prepareSlice(task, limits())).toMatchObject({ made: true });
    await writeFile(join(storeDir, 'prepared', '.saved-of-a-killed-run'), '');
    expect(await prepareSlice(task, limits())).toMatchObject({ made: false });
    expect(await prepared()).toHaveLength(1);
    expect(await answer()).toEqual(before);
  });

  it('has nothing to do for a model whose matrices are not mapped', async () => {
    expect(await prepareSlice(task, limits({ mappedBytes: 0, availableBytes: 0 }))).toBeUndefined();
    expect(await prepared()).toEqual([]);
  });

  it('says with numbers that memory does not suffice', async () => {
    await expect(prepareSlice(task, limits({ availableBytes: 1_000_000, mappedBytes: 2_000_000, largestMatrixBytes: 1_000_000 }))).rejects.toThrow(
      'packing 2 MB of weights takes 406 MB of memory once, 1 MB are available',
    );
  });

  it.each(['cgroup', 'watchdog'] as const)('is ended when it holds more memory than it should, by %s where there is one', async (memoryLimit) => {
    // Said to be small, so that the bound is far below what the process takes.
    const tight = limits({ mappedBytes: 1, largestMatrixBytes: -120_000_000, memoryLimit });
    await expect(prepareSlice(task, tight)).rejects.toThrow(
      /^the prepare process passed its memory limit of 43 MB \((cgroup-v1|cgroup-v2|watchdog)\)$/,
    );
    expect(await prepareSlice(task, limits())).toMatchObject({ made: true });
  });

  it('makes packed weights again that changed on disk, and keeps whole ones', async () => {
    await prepareSlice(task, limits());
    const [name] = await prepared();
    const file = join(storeDir, 'prepared', name!, 'weights.bin');
    const handle = await open(file, 'r+');
    await handle.write(Buffer.from([0xaa, 0x55, 0xaa]), 0, 3, 5_000);
    await handle.close();
    expect(await prepareSlice(task, limits())).toMatchObject({ made: true });
    expect(await prepareSlice(task, limits())).toMatchObject({ made: false });
  });

  it('ends at its deadline, and the next run starts from nothing and succeeds', async () => {
    await expect(prepareSlice(task, limits({ timeoutMs: 150 }))).rejects.toThrow('was not done within 150 ms');
    expect(await prepareSlice(task, limits())).toMatchObject({ made: true });
    expect(await prepared()).toHaveLength(1);
  });

  it('names what is wrong with the store', async () => {
    await expect(prepareSlice({ ...task, slices: [{ ...task.slices[0]!, sliceId: 'tiny' }] }, limits())).rejects.toThrow(
      'model gemma3n-random has no slice "tiny"; it has full',
    );
    await writeFile(join(storeDir, 'prepared'), 'a file where the folder should be');
    await expect(prepareSlice(task, limits())).rejects.toThrow(/^(ENOTDIR|EEXIST): /);
  });
});
