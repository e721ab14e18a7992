import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  bandEdgesOf,
  fullSlice,
  Manifest,
  planesOf,
  publishedSlicesFor,
  Quality,
  Slice,
  validateSlice,
  type GoldenPrompt,
  type ModelConfig,
} from '@matfleet/model';
import { z } from 'zod';
import { openCheckpoint, type Checkpoint } from './checkpoint.js';
import { openEngine } from './engine.js';
import type { ImportOptions } from './engine-api.js';
import { writeChunks } from './import-chunks.js';
import { loadTokenizer } from './tokenizer.js';

const DEFAULT_BLOCK = 64;
const GOLDEN_TOKENS = 8;
const GOLDEN_CONTEXT_TOKENS = 128;

/** A score as people write it: the standard error of a share of right answers follows from its sample size. */
const TableQuality = Quality.partial({ stderr: true }).transform(({ value, samples, stderr }): Quality => {
  return { value, samples, stderr: stderr ?? (samples > 0 ? Math.sqrt((value * (1 - value)) / samples) : 0) };
});
const SliceTable = z.object({
  slices: z.array(Slice.extend({ quality: TableQuality.optional(), tasks: z.record(z.string(), TableQuality).optional() })).min(1),
  evaluation: Manifest.shape.evaluation,
});
export interface SliceTable {
  readonly slices: Slice[];
  readonly evaluation?: Manifest['evaluation'];
}

/**
 * Reads a slice table: `{ "slices": [{ id, name, ffn, skip, quality?: { value, samples, stderr? }, tasks?: { name: quality } }], "evaluation"?: … }`,
 * or the list of slices alone. Other fields are left out.
 */
export async function readSliceTable(path: string): Promise<SliceTable> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new Error(`slice table ${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  const parsed = SliceTable.safeParse(Array.isArray(json) ? { slices: json } : json);
  if (!parsed.success) throw new Error(`slice table ${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/**
 * Turns a published checkpoint into a package: quantised once, cut into chunks that every slice shares, with the greedy answers that a
 * healthy device must reproduce. `out` appears complete or not at all. Memory stays near the largest single matrix.
 */
export async function importCheckpoint(options: ImportOptions, { golden = true }: { golden?: boolean } = {}): Promise<Manifest> {
  const { source, precision, signal, onProgress = () => undefined } = options;
  const out = resolve(options.out);
  if (await exists(out)) throw new Error(`${out} already exists`);
  const block = precision === 'fp32' ? null : (options.block ?? DEFAULT_BLOCK);
  if (block !== null && (block < 16 || block > 256 || !Number.isInteger(Math.log2(block))))
    throw new Error(`block ${block} is not a power of two from 16 to 256`);
  const checkpoint = await openCheckpoint(source);
  const partial = `${out}.partial-${randomUUID()}`;
  try {
    const config = { ...checkpoint.config, eosTokenIds: await stopIds(checkpoint) };
    const table = await slicesFor(options, config);
    const bandEdges = bandEdgesOf(config, table.slices);
    checkSlices(config, table.slices, bandEdges);
    await mkdir(join(partial, 'chunks'), { recursive: true });
    const plan = { precision: { kind: precision, block }, bandEdges, planes: planesOf(config, table.slices) };
    const chunks = await writeChunks(checkpoint, plan, join(partial, 'chunks'), onProgress, signal);
    const manifest: Manifest = {
      format: 'matfleet-package-1',
      name: options.name ?? packageName(source),
      config,
      precision: plan.precision,
      chunks,
      slices: table.slices,
      golden: [],
      ...(table.evaluation ? { evaluation: table.evaluation } : {}),
    };
    if (golden)
      for (const [done, slice] of table.slices.entries()) {
        signal?.throwIfAborted();
        onProgress({ step: 'golden', done, total: table.slices.length });
        manifest.golden.push(await goldenPrompt(manifest, partial, slice.id));
      }
    await writeDurably(join(partial, 'manifest.json'), `${JSON.stringify(Manifest.parse(manifest), null, 1)}\n`);
    await mkdir(dirname(out), { recursive: true });
    await rename(partial, out);
    return manifest;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  } finally {
    await checkpoint.tensors.close();
  }
}

/** The configured stop tokens, and the one that ends a chat turn where the tokenizer has it. */
async function stopIds({ dir, config }: Checkpoint): Promise<number[]> {
  const path = join(dir, 'tokenizer.json');
  if (!(await exists(path))) return config.eosTokenIds;
  const endOfTurn = loadTokenizer(await readFile(path)).idOf('<end_of_turn>');
  return endOfTurn === undefined ? config.eosTokenIds : [...new Set([...config.eosTokenIds, endOfTurn])];
}

async function slicesFor(options: ImportOptions, config: ModelConfig): Promise<SliceTable> {
  if (options.slices) return { slices: [...options.slices], evaluation: options.evaluation };
  const beside = join(options.source, 'slices.json');
  if (await exists(beside)) return readSliceTable(beside);
  const published = publishedSlicesFor(config);
  if (published.length > 0)
    return { slices: published, evaluation: { metric: 'MMLU accuracy (pre-trained)', dataset: 'google/gemma3n-slicing-configs' } };
  return { slices: [fullSlice(config)], evaluation: undefined };
}

function checkSlices(config: ModelConfig, slices: readonly Slice[], bandEdges: readonly (readonly number[])[]): void {
  const ids = new Set<string>();
  const shapes = new Map<string, string>();
  for (const slice of slices) {
    try {
      validateSlice(config, slice, bandEdges);
    } catch (cause) {
      throw new Error(`slice ${slice.id}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
    if (ids.has(slice.id)) throw new Error(`two slices have the id ${slice.id}`);
    ids.add(slice.id);
    const shape = `${slice.ffn.join(',')}|${slice.skip.join(',')}`;
    if (shapes.has(shape)) throw new Error(`slices ${shapes.get(shape)} and ${slice.id} are the same widths and skipped layers`);
    shapes.set(shape, slice.id);
  }
}

/** A short greedy continuation by this slice, as the importing machine computes it. */
async function goldenPrompt(manifest: Manifest, storeDir: string, sliceId: string): Promise<GoldenPrompt> {
  const { config } = manifest;
  const engine = await openEngine({ manifest, storeDir, sliceId, contextTokens: Math.min(GOLDEN_CONTEXT_TOKENS, config.maxPositionEmbeddings) });
  try {
    const hasTokenizer = manifest.chunks.some(({ part }) => part.kind === 'tokenizer' && part.file === 'tokenizer.json');
    const some = Math.min(config.vocabSize, config.vocabSizePerLayerInput);
    const promptIds = hasTokenizer
      ? engine.tokenize([{ role: 'user', text: 'What can you do?' }])
      : [config.bosTokenId, ...[0.3, 0.5, 0.7].map((x) => Math.floor(some * x))];
    const tokenIds: number[] = [];
    for await (const { tokenId } of engine.generate(promptIds, { maxTokens: GOLDEN_TOKENS })) tokenIds.push(tokenId);
    return { sliceId, promptIds, tokenIds };
  } finally {
    await engine.close();
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

const packageName = (source: string): string =>
  basename(resolve(source))
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 63) || 'model';

async function writeDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
