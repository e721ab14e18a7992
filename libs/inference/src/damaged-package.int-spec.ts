import { copyFile, cp, open, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { chunksOf, sliceById, type Chunk, type Manifest } from '@matfleet/model';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { verifyChunks } from './chunk-check.js';
import { openEngine } from './engine.js';
import { importCheckpoint } from './import.js';
import { makeFolder, tinyCheckpoint } from './testing-fixture.js';

const LAYERS = 20;
const slices = [
  { id: 'full', name: 'full', ffn: Array<number>(LAYERS).fill(64), skip: [] },
  { id: 'narrow', name: 'narrow', ffn: Array<number>(LAYERS - 5).fill(32), skip: [10, 11, 12, 13, 14] },
];

describe('a package with a damaged file', () => {
  let manifest: Manifest;
  let whole: string;
  let storeDir: string;
  let remove: () => Promise<void>;
  let band: Chunk;
  let plane: Chunk;
  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    whole = join(folder.dir, 'whole');
    storeDir = join(folder.dir, 'store');
    manifest = await importCheckpoint({ source: tinyCheckpoint, out: whole, precision: 'int8', block: 32, slices, golden: false });
    band = manifest.chunks.find(({ part }) => part.kind === 'band' && part.layer === 7 && part.from === 32)!;
    plane = manifest.chunks.find(({ part }) => part.kind === 'plane' && part.layers.includes(12))!;
  });
  beforeEach(async () => {
    await rm(storeDir, { recursive: true, force: true });
    await cp(whole, storeDir, { recursive: true });
  });
  afterAll(() => remove());

  const fileOf = ({ id }: Chunk, dir = storeDir): string => join(dir, 'chunks', id);
  const start = async (sliceId: string): Promise<void> => (await openEngine({ manifest, storeDir, sliceId })).close();
  const all = (): Promise<string[]> => verifyChunks(storeDir, manifest.chunks).then((damaged) => damaged.map(({ problem }) => problem));
  const refetch = (chunk: Chunk): Promise<void> => copyFile(fileOf(chunk, whole), fileOf(chunk));

  it('is found by its SHA-256 when one bit of a band has turned, and is whole again with that chunk alone fetched again', async () => {
    const file = await open(fileOf(band), 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 100);
    byte[0]! ^= 1;
    await file.write(byte, 0, 1, 100);
    await file.close();
    const [damaged, ...others] = await verifyChunks(storeDir, manifest.chunks);
    expect(others).toEqual([]);
    expect(damaged!.id).toBe(band.id);
    expect(damaged!.problem).toMatch(/^chunk \w{64} \(FFN channels 32 to 63 of layer 7\), file \S+ is damaged: its SHA-256 is \w{64}$/);
    expect(damaged!.problem).toContain(fileOf(band));
    await refetch(band);
    expect(await all()).toEqual([]);
  });

  it('refuses to open with a short band, naming chunk, layer, channels, file and both sizes', async () => {
    await truncate(fileOf(band), band.bytes - 1);
    await expect(start('full')).rejects.toThrow(
      `chunk ${band.id} (FFN channels 32 to 63 of layer 7), file ${fileOf(band)}, has ${band.bytes - 1} bytes instead of ${band.bytes}; fetch or import it again`,
    );
    await refetch(band);
    await start('full');
  });

  it('refuses to open without a plane of per-layer embeddings, naming its tokens and layers; slices without those layers open', async () => {
    await rm(fileOf(plane));
    const problem = `chunk ${plane.id} (per-layer embeddings of tokens 0 to 255 for layers 10 to 14), file ${fileOf(plane)}, is missing`;
    await expect(start('full')).rejects.toThrow(problem);
    expect(await all()).toEqual([problem]);
    expect(chunksOf(manifest, sliceById(manifest, 'narrow'))).not.toContain(plane);
    await start('narrow');
    await refetch(plane);
    await start('full');
  });
});
