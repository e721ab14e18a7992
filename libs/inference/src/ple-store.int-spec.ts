import { join } from 'node:path';
import { chunksOf, fullSlice, hotRowBytes, type Manifest } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { EmbeddingTables } from './embedding-tables.js';
import { importCheckpoint } from './import.js';
import { PleStore } from './ple-store.js';
import { tinyCheckpoint, withFolder } from './testing-fixture.js';
import { TokenEmbedding } from './token-embedding.js';

const full = { id: 'full', name: 'Full', ffn: Array<number>(20).fill(64), skip: [] };
const narrow = { id: 'narrow', name: 'Narrow', ffn: Array<number>(15).fill(32), skip: [10, 11, 12, 13, 14] };

const withPackage = (precision: Manifest['precision']['kind'], use: (manifest: Manifest, storeDir: string) => Promise<void>): Promise<void> =>
  withFolder(async (dir) => {
    const storeDir = join(dir, 'package');
    const block = precision === 'fp32' ? {} : { block: 16 };
    await use(await importCheckpoint({ source: tinyCheckpoint, out: storeDir, precision, slices: [full, narrow], ...block }), storeDir);
  });

describe('embedding tables on disk', () => {
  it.each(['int4', 'int8', 'fp32'] as const)('give a prompt read in one batch what its tokens give one by one, %s', (precision) =>
    withPackage(precision, async (manifest, storeDir) => {
      const chunks = chunksOf(manifest, fullSlice(manifest.config));
      const ids = [2, 200, 7, 7, 33, 2, ...Array.from({ length: 60 }, (_, i) => (i * 41) % manifest.config.vocabSize)];
      // The layers of one plane and some of the other, in an order of their own.
      const layers = [19, 0, 1, 12, 2];
      for (const cachedRows of [0, 3, 1_000]) {
        const ple = new PleStore(manifest, chunks, storeDir, cachedRows);
        const tokens = new TokenEmbedding(manifest.config, chunks, storeDir, cachedRows);
        for (const table of [{ read: (of: number[]) => ple.read(of, layers) }, tokens]) {
          const batched = await table.read(ids);
          const singly = await Promise.all(ids.map((id) => table.read([id])));
          expect(batched.some((value) => value !== 0)).toBe(true);
          expect(batched).toEqual(Float32Array.from(singly.flatMap((row) => [...row])));
          expect(await table.read(ids)).toEqual(batched);
        }
        ple.close();
        tokens.close();
      }
    }),
  );

  it('refuse layers that are in none of the chunks', () =>
    withPackage('int8', async (manifest, storeDir) => {
      const ple = new PleStore(manifest, chunksOf(manifest, narrow), storeDir, 4);
      await expect(ple.read([1], [0, 12])).rejects.toThrow('no chunk holds the per-layer embeddings of layer 12');
      ple.close();
    }));

  it('keep as many rows of each as fit the bytes, by default what the footprint counts', () =>
    withPackage('int4', async (manifest, storeDir) => {
      const chunks = chunksOf(manifest, fullSlice(manifest.config));
      const perToken = TokenEmbedding.rowBytes(manifest.config, chunks) + PleStore.rowBytes(manifest, chunks);
      const ids = Array.from({ length: 100 }, (_, i) => i);
      for (const bytes of [0, perToken - 1, perToken, 10 * perToken + 1, undefined]) {
        const tables = new EmbeddingTables(manifest, chunks, storeDir, bytes);
        await Promise.all([tables.tokens.read(ids), tables.ple.read(ids, [0, 12])]);
        const rows = Math.floor((bytes ?? hotRowBytes(chunks)) / perToken);
        expect(tables.cacheBytes).toBe(rows * perToken);
        expect(tables.ple.rowsCached).toBe(rows * 2);
        tables.close();
      }
    }));
});
