import { copyFile, mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { chunksOf, nests, publishedSlices, versionId, type Manifest } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { importCheckpoint } from './import.js';
import { openLogits } from './logits.js';
import { readManifest } from './package-dir.js';
import { largestDifference, tinyCheckpoint, withFolder } from './testing-fixture.js';

const LAYERS = 20;
const slice = (id: string, width: number, skip: number[] = []) => ({ id, name: id, ffn: Array<number>(LAYERS - skip.length).fill(width), skip });
const full = slice('full', 64);
const narrow = slice('narrow', 32, [10, 11, 12, 13, 14]);

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
interface Files {
  config: { model_type: string; text_config: Record<string, unknown> } & Record<string, unknown>;
  header: Header;
  data: Buffer;
}

/** A copy of the tiny checkpoint after `change`. */
async function changed(dir: string, change: (files: Files) => void): Promise<string> {
  const source = join(dir, 'checkpoint');
  await mkdir(source);
  const weights = await readFile(join(tinyCheckpoint, 'model.safetensors'));
  const headerBytes = Number(weights.readBigUInt64LE(0));
  const files: Files = {
    config: JSON.parse(await readFile(join(tinyCheckpoint, 'config.json'), 'utf8')),
    header: JSON.parse(weights.subarray(8, 8 + headerBytes).toString()),
    data: weights.subarray(8 + headerBytes),
  };
  change(files);
  await writeFile(join(source, 'config.json'), JSON.stringify(files.config));
  await writeWeights(join(source, 'model.safetensors'), files.header, files.data);
  return source;
}

async function writeWeights(path: string, header: Header, data: Buffer): Promise<void> {
  const json = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  await writeFile(path, Buffer.concat([prefix, json, data]));
}

/** Splits the checkpoint into two shards with an index. */
async function sharded(dir: string): Promise<string> {
  const source = join(dir, 'sharded');
  await mkdir(source);
  await copyFile(join(tinyCheckpoint, 'config.json'), join(source, 'config.json'));
  const weights = await readFile(join(tinyCheckpoint, 'model.safetensors'));
  const headerBytes = Number(weights.readBigUInt64LE(0));
  const { __metadata__: _, ...header } = JSON.parse(weights.subarray(8, 8 + headerBytes).toString()) as Header;
  const data = weights.subarray(8 + headerBytes);
  const weight_map: Record<string, string> = {};
  for (const shard of [0, 1]) {
    const file = `model-0000${shard + 1}-of-00002.safetensors`;
    const part: Header = {};
    const pieces: Buffer[] = [];
    let at = 0;
    Object.entries(header).forEach(([name, entry], i) => {
      if (i % 2 !== shard) return;
      const bytes = data.subarray(...entry.data_offsets);
      part[name] = { ...entry, data_offsets: [at, at + bytes.length] };
      at += bytes.length;
      pieces.push(bytes);
      weight_map[name] = file;
    });
    await writeWeights(join(source, file), part, Buffer.concat(pieces));
  }
  await writeFile(join(source, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
  return source;
}

const Q_PROJ = 'model.language_model.layers.2.self_attn.q_proj.weight';

describe('import of a checkpoint', () => {
  it('names every chunk by its SHA-256, nests slices by chunks and records the golden answers of each', async () => {
    await withFolder(async (dir) => {
      const out = join(dir, 'package');
      const steps = new Set<string>();
      const manifest = await importCheckpoint({
        source: tinyCheckpoint,
        out,
        precision: 'int8',
        block: 32,
        slices: [full, narrow],
        name: 'tiny',
        onProgress: ({ step }) => steps.add(step),
      });
      expect(await readManifest(out)).toEqual(manifest);
      for (const { id, bytes } of manifest.chunks) {
        const content = await readFile(join(out, 'chunks', id));
        expect(content).toHaveLength(bytes);
        expect(createHash('sha256').update(content).digest('hex')).toBe(id);
      }
      expect(new Set(await readdir(join(out, 'chunks')))).toEqual(new Set(manifest.chunks.map((c) => c.id)));
      expect(nests(narrow, full)).toBe(true);
      const inFull = new Set(chunksOf(manifest, full).map((c) => c.id));
      expect(chunksOf(manifest, narrow).every((c) => inFull.has(c.id))).toBe(true);
      expect(chunksOf(manifest, narrow).length).toBeLessThan(inFull.size);
      expect(manifest.golden.map((g) => [g.sliceId, g.tokenIds.length])).toEqual([
        ['full', 8],
        ['narrow', 8],
      ]);
      expect([...steps].sort()).toEqual(['golden', 'weights']);
    });
  });

  it('gives the same version twice, from one file or from shards', async () => {
    await withFolder(async (dir) => {
      const version = async (source: string, out: string) => {
        await importCheckpoint({ source, out, precision: 'int4', slices: [full, narrow], name: 'tiny' });
        return versionId(await readFile(join(out, 'manifest.json')));
      };
      const first = await version(tinyCheckpoint, join(dir, 'a'));
      expect(await version(tinyCheckpoint, join(dir, 'b'))).toBe(first);
      expect(await version(await sharded(dir), join(dir, 'c'))).toBe(first);
    });
  });

  it('takes the full slice without a table, a table from slices.json beside the weights', async () => {
    await withFolder(async (dir) => {
      expect((await importCheckpoint({ source: tinyCheckpoint, out: join(dir, 'a'), precision: 'fp32' })).slices.map((s) => s.id)).toEqual(['full']);
      const source = await changed(dir, () => undefined);
      const quality = { value: 0.5, samples: 25, stderr: 0.1 };
      await writeFile(
        join(source, 'slices.json'),
        JSON.stringify({
          slices: [{ ...narrow, quality: { value: 0.5, samples: 25 }, handwritten: {} }, full],
          evaluation: { metric: 'exact match', dataset: 'held out' },
        }),
      );
      const manifest = await importCheckpoint({ source, out: join(dir, 'b'), precision: 'int8' });
      expect(manifest.slices).toEqual([{ ...narrow, quality }, full]);
      expect(manifest.evaluation).toEqual({ metric: 'exact match', dataset: 'held out' });
      // As the training code writes it, before a benchmark adds an evaluation.
      const dataset = { name: 'heldout', sha256: 'ab'.repeat(32), size: 1490 };
      await writeFile(join(source, 'slices.json'), JSON.stringify({ version: 1, metric: 'exact-match', dataset, slices: [full] }));
      const measured = await importCheckpoint({ source, out: join(dir, 'c'), precision: 'int8', golden: false });
      expect(measured.evaluation).toEqual({ metric: 'exact-match', dataset: 'heldout', sha256: dataset.sha256 });
    });
  });

  it('reads flat configs, the short prefix and rope_theta fields as the nested published ones', async () => {
    await withFolder(async (dir) => {
      const source = await changed(dir, (files) => {
        const { rope_parameters: _, ...text } = files.config.text_config;
        files.config = {
          ...text,
          model_type: 'gemma3n_text',
          intermediate_size: 64,
          rope_theta: 1e6,
          rope_local_base_freq: 1e4,
        } as unknown as Files['config'];
        files.header = Object.fromEntries(
          Object.entries(files.header).map(([name, entry]) => [name.replace('model.language_model.', 'model.'), entry]),
        );
      });
      const ids = [2, 9, 77, 130];
      const [flat, nested] = [await openLogits({ source }), await openLogits({ source: tinyCheckpoint })];
      expect(largestDifference(await flat.logits(ids), await nested.logits(ids))).toBe(0);
      await Promise.all([flat.close(), nested.close()]);
    });
  });
});

describe('bad input is refused by name and number, and leaves nothing behind', () => {
  const cases: [name: string, break_: (dir: string) => Promise<string>, error: string | RegExp][] = [
    [
      'a truncated file',
      async (dir) => {
        const source = await changed(dir, () => undefined);
        await truncate(join(source, 'model.safetensors'), 1_000_000);
        return source;
      },
      /model\.safetensors is truncated: tensor \S+ ends at byte \d+, the file has 1000000/,
    ],
    [
      'a missing shard',
      async (dir) => {
        const source = await sharded(dir);
        const index = JSON.parse(await readFile(join(source, 'model.safetensors.index.json'), 'utf8'));
        index.weight_map[Q_PROJ] = 'model-00003-of-00002.safetensors';
        await writeFile(join(source, 'model.safetensors.index.json'), JSON.stringify(index));
        return source;
      },
      /weights file \S+model-00003-of-00002\.safetensors is missing/,
    ],
    ['a missing tensor', (dir) => changed(dir, ({ header }) => delete header[Q_PROJ]), `tensor ${Q_PROJ} is missing`],
    [
      'a wrong shape',
      (dir) => changed(dir, ({ header }) => (header[Q_PROJ]!.shape = [32, 128])),
      `tensor ${Q_PROJ} in model.safetensors has shape [32, 128], config.json says [128, 32]`,
    ],
    [
      'an unknown type',
      (dir) => changed(dir, ({ header }) => (header[Q_PROJ]!.dtype = 'I32')),
      `tensor ${Q_PROJ} in model.safetensors is of type I32`,
    ],
    [
      'a weight that is not a number',
      (dir) => changed(dir, ({ header, data }) => data.writeFloatLE(NaN, header[Q_PROJ]!.data_offsets[0] + 4 * (5 * 32 + 7))),
      `tensor ${Q_PROJ} in model.safetensors holds NaN at [5, 7]`,
    ],
    ['another architecture', (dir) => changed(dir, ({ config }) => (config.model_type = 'llama')), 'model_type "llama"'],
    [
      'a wrong number of layer types',
      (dir) => changed(dir, ({ config }) => (config.text_config['layer_types'] = ['full_attention'])),
      'layer_types has 1 entries for 20 layers',
    ],
    ['a missing field', (dir) => changed(dir, ({ config }) => delete config.text_config['laurel_rank']), 'laurel_rank'],
    ['a folder without a config', (dir) => mkdir(join(dir, 'empty')).then(() => join(dir, 'empty')), 'it has no config.json'],
  ];
  it.each(cases)('%s', async (_, break_, error) => {
    await withFolder(async (dir) => {
      const source = await break_(dir);
      await mkdir(join(dir, 'out'));
      await expect(importCheckpoint({ source, out: join(dir, 'out', 'package'), precision: 'int8' })).rejects.toThrow(error);
      expect(await readdir(join(dir, 'out'))).toEqual([]);
    });
  });

  it("a slice that skips a K/V donor, a width off the bands, two equal slices, Google's table on another shape", async () => {
    await withFolder(async (dir) => {
      const refused = async (slices: Manifest['slices'], error: string) => {
        await expect(importCheckpoint({ source: tinyCheckpoint, out: join(dir, 'out'), precision: 'fp32', slices })).rejects.toThrow(error);
        expect(await readdir(dir)).toEqual([]);
      };
      await refused([slice('broken', 64, [9])], 'slice broken: layer 9 cannot be skipped: layers 14, 19 read its K/V');
      await refused([full, slice('again', 64)], 'slices full and again are the same widths and skipped layers');
      await refused([...publishedSlices], '35 FFN widths for 20 kept layers');
    });
    await expect(openLogits({ source: tinyCheckpoint, ffn: Array(LAYERS).fill(128) })).rejects.toThrow(
      "FFN width 128 of layer 0 exceeds the model's 64",
    );
  });

  it('a cut off the bands of a package, and ids outside the vocabulary', async () => {
    await withFolder(async (dir) => {
      const out = join(dir, 'package');
      await importCheckpoint({ source: tinyCheckpoint, out, precision: 'fp32', slices: [full, narrow] });
      await expect(openLogits({ source: out, ffn: Array(LAYERS).fill(48) })).rejects.toThrow('FFN width 48 of layer 0 is not on a band edge: 32, 64');
      await expect(openLogits({ source: out, sliceId: 'wide' })).rejects.toThrow('has no slice "wide"; it has full, narrow');
      const model = await openLogits({ source: out, ffn: [64, ...Array<number>(18).fill(32)], skip: [15] });
      await expect(model.logits([5, 300])).rejects.toThrow('token id 300 is outside the vocabulary of 300');
      await model.close();
      await expect(importCheckpoint({ source: tinyCheckpoint, out, precision: 'fp32' })).rejects.toThrow('already exists');
    });
  });

  it('stops when aborted, leaving nothing', async () => {
    await withFolder(async (dir) => {
      const stop = new AbortController();
      const onProgress = ({ done }: { done: number }) => void (done > 0 && stop.abort(new Error('enough')));
      await expect(
        importCheckpoint({ source: tinyCheckpoint, out: join(dir, 'out'), precision: 'int8', signal: stop.signal, onProgress }),
      ).rejects.toThrow('enough');
      expect(await readdir(dir)).toEqual([]);
    });
  });
});
