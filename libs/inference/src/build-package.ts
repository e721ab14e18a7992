import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { bandEdgesOf, Manifest, planesOf, validateSlice, type GoldenPrompt, type ModelConfig, type Slice } from '@matfleet/model';
import type { Checkpoint } from './checkpoint.js';
import type { ImportProgress, PrecisionKind } from './engine-api.js';
import { openEngine } from './engine.js';
import { writeChunks } from './import-chunks.js';
import type { SliceTable } from './slice-table.js';
import { loadTokenizer } from './tokenizer.js';

const DEFAULT_BLOCK = 64;
const GOLDEN_TOKENS = 8;
const GOLDEN_CONTEXT_TOKENS = 128;

export interface BuildOptions {
  /** Must not exist; appears complete or not at all. */
  readonly out: string;
  readonly name: string;
  readonly precision: PrecisionKind;
  /** Requested quantisation block; 64 by default. */
  readonly block?: number;
  readonly table: SliceTable;
  /** Compute the answers that a healthy device must reproduce: loads every slice once. */
  readonly golden: boolean;
  readonly onProgress?: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
}

/** Writes a package from a model's values. */
export async function buildPackage(checkpoint: Checkpoint, options: BuildOptions): Promise<Manifest> {
  const { precision, table, signal, onProgress = () => undefined } = options;
  const out = resolve(options.out);
  const block = precision === 'fp32' ? null : (options.block ?? DEFAULT_BLOCK);
  if (block !== null && (block < 16 || block > 256 || !Number.isInteger(Math.log2(block))))
    throw new Error(`block ${block} is not a power of two from 16 to 256`);
  const partial = `${out}.partial-${randomUUID()}`;
  try {
    const config = { ...checkpoint.config, eosTokenIds: await stopIds(checkpoint) };
    const bandEdges = bandEdgesOf(config, table.slices);
    checkSlices(config, table.slices, bandEdges);
    await mkdir(join(partial, 'chunks'), { recursive: true });
    const plan = { precision: { kind: precision, block }, bandEdges, planes: planesOf(config, table.slices) };
    const chunks = await writeChunks(checkpoint, plan, join(partial, 'chunks'), onProgress, signal);
    const manifest: Manifest = {
      format: 'matfleet-package-1',
      name: options.name,
      config,
      precision: plan.precision,
      chunks,
      slices: table.slices,
      golden: [],
      ...(table.evaluation ? { evaluation: table.evaluation } : {}),
    };
    if (options.golden)
      for (const [done, slice] of table.slices.entries()) {
        signal?.throwIfAborted();
        onProgress({ step: 'golden', done, total: table.slices.length });
        manifest.golden.push(await goldenPrompt(manifest, partial, slice.id));
      }
    await writeDurably(join(partial, 'manifest.json'), `${JSON.stringify(Manifest.parse(manifest), null, 1)}\n`);
    await assertNew(out);
    await rename(partial, out);
    return manifest;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

/** The configured stop tokens, and the one that ends a chat turn where the tokenizer has it. */
async function stopIds({ dir, config }: Checkpoint): Promise<number[]> {
  if (dir === undefined) return config.eosTokenIds;
  const path = join(dir, 'tokenizer.json');
  if (!(await exists(path))) return config.eosTokenIds;
  const endOfTurn = loadTokenizer(await readFile(path)).idOf('<end_of_turn>');
  return endOfTurn === undefined ? config.eosTokenIds : [...new Set([...config.eosTokenIds, endOfTurn])];
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

export async function assertNew(path: string): Promise<void> {
  if (await exists(path)) throw new Error(`${resolve(path)} already exists`);
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

async function writeDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
