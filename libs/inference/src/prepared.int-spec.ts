import { appendFile, cp, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  chunksOf,
  footprint,
  MAPPED_FROM_BYTES,
  mappedBytes,
  packedExtraBytes,
  preparedBytes,
  publishedShapes,
  type Manifest,
  type ModelConfig,
} from '@matfleet/model';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Decoder, type DecoderOptions } from './decoder.js';
import { openEngine } from './engine.js';
import { ownerMark } from './owner.js';
import { packMatrices } from './pack.js';
import { PackedFile } from './packed-file.js';
import { prepare, type PrepareResult } from './prepare.js';
import { preparedDir, readPrepared, verifyPrepared } from './prepared.js';
import { synthPackage } from './synth.js';
import { largestDifference, makeFolder, withFolder } from './testing-fixture.js';

/** E4B's structure, with matrices just large enough to be mapped. */
const config: ModelConfig = {
  ...publishedShapes.e4b,
  vocabSize: 512,
  vocabSizePerLayerInput: 512,
  hiddenSize: 1024,
  hiddenSizePerLayerInput: 32,
  numHiddenLayers: 6,
  numKvSharedLayers: 1,
  intermediateSize: Array<number>(6).fill(1024),
  layerTypes: publishedShapes.e4b.layerTypes.slice(0, 6),
  activationSparsityPattern: publishedShapes.e4b.activationSparsityPattern.slice(0, 6),
  headDim: 64,
};
const changeIndex = async (dir: string, over: object): Promise<void> => {
  const path = join(dir, 'index.json');
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), ...over }));
};
const prompt = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37) % 500));

async function logitsOf(manifest: Manifest, storeDir: string, options: DecoderOptions): Promise<Float32Array[]> {
  const decoder = await Decoder.open(manifest, storeDir, manifest.slices[0]!, options);
  try {
    return (await decoder.forward(prompt, decoder.newCache(prompt.length, prompt.length), prompt.length)).map((row) => row.slice());
  } finally {
    await decoder.close();
  }
}

describe('a prepared slice', () => {
  let manifest: Manifest;
  let storeDir: string;
  let remove: () => Promise<void>;
  /** What `make` made of the whole package, kept aside; each test starts with a copy of it. */
  let made: PrepareResult;
  let kept: string;
  const prepared = () => join(storeDir, 'prepared');
  const slice = () => manifest.slices[0]!;
  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    storeDir = join(folder.dir, 'package');
    manifest = await synthPackage({ shape: config, out: storeDir, precision: 'int4', block: 64 });
    made = await make();
    kept = join(folder.dir, 'kept');
    await rename(prepared(), kept);
  });
  afterAll(() => remove());
  beforeEach(async () => {
    await rm(prepared(), { recursive: true, force: true });
    await cp(kept, prepared(), { recursive: true });
  });

  const make = () => prepare({ manifest, storeDir, sliceId: slice().id });
  const logits = (options: DecoderOptions): Promise<Float32Array[]> => logitsOf(manifest, storeDir, options);

  it('computes what the unpacked slice computes, to the last bit', async () => {
    expect(made).toMatchObject({ made: true });
    const found = await readPrepared(manifest, storeDir, slice());
    expect(found!.tensors.size).toBeGreaterThan(20);
    expect(largestDifference(await logits({ prepared: found! }), await logits({}))).toBe(0);
  });

  it('holds each matrix as it is and packed, and little more', async () => {
    const { bytes, tensors } = (await readPrepared(manifest, storeDir, slice()))!;
    const matrices = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0);
    expect(bytes / matrices).toBeGreaterThan(2);
    expect(bytes / matrices).toBeLessThan(2.4);
  });

  it('takes on disk and in memory what the model says beforehand, within 2 %', async () => {
    const { tensors } = (await readPrepared(manifest, storeDir, slice()))!;
    // Neighbouring small matrices are packed as one, and count as small.
    const mapped = [...tensors.values()].filter(({ bytes }) => bytes >= MAPPED_FROM_BYTES);
    const packed = mapped.reduce((sum, tensor) => sum + tensor.packed.reduce((total, { bytes }) => total + bytes, 0), 0);
    const raw = mapped.reduce((sum, tensor) => sum + tensor.bytes, 0);
    const scales = (raw / 32) * 4;
    const extra = (packedExtraBytes(chunksOf(manifest, slice())) * raw) / mappedBytes(manifest, slice());
    expect((raw + scales + extra) / packed).toBeCloseTo(1, 2);
    const share = mappedBytes(manifest, slice()) / raw;
    expect(Math.abs(preparedBytes(manifest, slice()) / ((raw + packed) * share) - 1)).toBeLessThan(0.02);
    const { packedExtraBytes: counted, totalBytes } = footprint(manifest, slice(), 64);
    expect(counted).toBe(packedExtraBytes(chunksOf(manifest, slice())));
    expect(totalBytes).toBeGreaterThan(counted + mappedBytes(manifest, slice()));
  });

  it('is found wrong by its name when a byte of it is another, or a part is gone', async () => {
    const dir = preparedDir(manifest, slice());
    expect(await verifyPrepared(storeDir)).toEqual([]);
    const file = await open(join(storeDir, dir, 'weights.bin'), 'r+');
    await file.write(Buffer.from([0x5a]), 0, 1, 9_999);
    await file.close();
    expect(await verifyPrepared(storeDir)).toEqual([`${dir}/weights.bin: its SHA-256 is not the one in its index`]);
    await truncate(join(storeDir, dir, 'weights.bin'), 4096);
    expect(await verifyPrepared(storeDir)).toEqual([`${dir}/weights.bin has 4096 bytes instead of ${made.bytes}`]);
    await rm(join(storeDir, dir, 'index.json'));
    expect(await verifyPrepared(storeDir)).toEqual([`${dir}: its index cannot be read`]);
  });

  it('is made once and leaves nothing else behind', async () => {
    expect(await make()).toMatchObject({ made: false, bytes: made.bytes });
    expect(await readdir(prepared())).toEqual([preparedDir(manifest, slice()).split('/').at(-1)]);
    expect((await readdir(storeDir)).sort()).toEqual(['chunks', 'manifest.json', 'prepared']);
  });

  it.each([
    ['its weights are cut short', (dir: string) => truncate(join(dir, 'weights.bin'), 4096)],
    ['its weights have grown', (dir: string) => appendFile(join(dir, 'weights.bin'), 'x')],
    ['its index is damaged', (dir: string) => writeFile(join(dir, 'index.json'), '{"format":')],
    ['another runtime made it', (dir: string) => changeIndex(dir, { onnxRuntime: '1.0.0' })],
    ['it was made for another processor', (dir: string) => changeIndex(dir, { cpu: '0123' })],
    ['it has another format', (dir: string) => changeIndex(dir, { format: 'matfleet-prepared-0' })],
  ])('is not used, and made again, when %s', async (_, damage) => {
    await damage(join(storeDir, preparedDir(manifest, slice())));
    expect(await readPrepared(manifest, storeDir, slice())).toBeUndefined();
    const engine = await openEngine({ manifest, storeDir, sliceId: slice().id, contextTokens: 64 });
    expect((await engine.generate([2], { maxTokens: 1 }).next()).done).toBe(false);
    await engine.close();
    expect(await make()).toMatchObject({ made: true });
    expect(await readPrepared(manifest, storeDir, slice())).toBeDefined();
  });

  it('is not used when a packed matrix gives another product than the unpacked one, and says which', async () => {
    await rm(prepared(), { recursive: true });
    await mkdir(prepared());
    const file = await PackedFile.create(storeDir, 'prepared/weights.bin');
    const add = file.add.bind(file);
    // A disk that does not keep what it was given.
    file.add = async (saved, tensor) => {
      const place = await add(saved, tensor);
      if (!tensor.name.includes('layers.3.mlp.up')) return place;
      const handle = await open(join(prepared(), 'weights.bin'), 'r+');
      await handle.write(Buffer.alloc(64), 0, 64, place.packed[0]!.offset);
      await handle.close();
      return place;
    };
    await expect(packMatrices(manifest, storeDir, [slice()], file)).rejects.toThrow(
      /^layers\.3\.mlp\.up_proj\.weight@0, packed, gives \S+ at \d+, unpacked \S+: the packed form is not used$/,
    );
    await file.abandon();
  });

  it('is compared in its logits, too, where that is asked', async () => {
    await rm(prepared(), { recursive: true });
    expect(await prepare({ manifest, storeDir, sliceId: slice().id, compareLogits: true })).toMatchObject({ made: true });
  });

  it('sweeps graphs of processes that were killed while they loaded one, not those of running ones', async () => {
    const own = `.graph-${ownerMark()}-0123abcd.onnx`;
    const killed = `.graph-${ownerMark().replace(/\d+$/, '1')}-0123abcd.onnx`;
    for (const name of [own, killed]) await writeFile(join(storeDir, name), '');
    await logits({});
    expect((await readdir(storeDir)).filter((name) => name.startsWith('.graph'))).toEqual([own]);
    await rm(join(storeDir, own));
  });

  it('says what is wrong and leaves the slice usable when the folder cannot be written', async () => {
    await rm(prepared(), { recursive: true });
    await writeFile(prepared(), 'a file where the folder should be');
    await expect(make()).rejects.toThrow(/ENOTDIR|EEXIST/);
    await rm(prepared());
    await mkdir(prepared());
    expect(await logits({})).toHaveLength(prompt.length);
  });
});

describe('a prepared slice whose products do not round activations', () => {
  it('computes what a float32 graph over the dequantised weights computes, within 2e-3', () =>
    withFolder(async (dir) => {
      const storeDir = join(dir, 'package');
      // Below this width activations stay float32; the FFN is still wide enough to be mapped.
      const shape = { ...config, hiddenSize: 512 };
      const manifest = await synthPackage({ shape, out: storeDir, precision: 'int4', block: 32 });
      await prepare({ manifest, storeDir, sliceId: manifest.slices[0]!.id });
      const prepared = (await readPrepared(manifest, storeDir, manifest.slices[0]!))!;
      expect([...prepared.tensors.keys()].filter((name) => name.includes('mlp.'))).toHaveLength(18);
      const exact = await logitsOf(manifest, storeDir, { dequantized: true });
      expect(largestDifference(await logitsOf(manifest, storeDir, { prepared }), exact)).toBeLessThan(2e-3);
    }));
});
