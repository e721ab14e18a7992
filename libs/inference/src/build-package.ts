import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { bandEdgesOf, Manifest, planesOf, validateSlice, type Chunk, type GoldenPrompt, type ModelConfig, type Slice } from '@matfleet/model';
import type { Checkpoint } from './checkpoint.js';
import { assertRoom, explainFullDisk } from './disk-space.js';
import { Encoders } from './encoders.js';
import type { ImportProgress, PrecisionKind } from './engine-api.js';
import { goldenInChild } from './golden-child.js';
import { goldenPrompts, packedBytesAtMost, packsForGolden } from './golden.js';
import { TOKENIZER_FILES, writeChunks } from './import-chunks.js';
import { planPackage, type PackagePlan } from './package-plan.js';
import { makeDir } from './partial-dir.js';
import type { SliceTable } from './slice-table.js';
import { loadTokenizer } from './tokenizer.js';

const DEFAULT_BLOCK = 64;
/** Smaller packages are written before a thread has started. */
const THREADS_FROM_BYTES = 100e6;
const MOST_THREADS = 4;

export interface BuildOptions {
  /** Must not exist; appears complete or not at all. */
  readonly out: string;
  readonly name: string;
  readonly precision: PrecisionKind;
  /** Requested quantisation block; 64 by default. */
  readonly block?: number;
  readonly table: SliceTable;
  /** Compute the answers that a healthy device must reproduce: loads every slice once, those of large models in a process of their own. */
  readonly golden: boolean;
  /** That encode weights; by default all cores up to 4, for a small model the caller's own. */
  readonly threads?: number;
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
  return makeDir(out, async (partial) => {
    const config = { ...checkpoint.config, eosTokenIds: await stopIds(checkpoint) };
    const bandEdges = bandEdgesOf(config, table.slices);
    checkSlices(config, table.slices, bandEdges);
    const plan = planPackage(config, { precision: { kind: precision, block }, bandEdges, planes: planesOf(config, table.slices) });
    const needed = plan.bytes + (await tokenizerBytes(checkpoint));
    const what = `package ${options.name}`;
    await assertRoom(out, needed, what);
    const manifest: Manifest = {
      format: 'matfleet-package-1',
      name: options.name,
      config,
      precision: { kind: precision, block },
      chunks: await chunksAt(partial, plan).catch(async (error: unknown) => {
        await rm(partial, { recursive: true, force: true });
        throw await explainFullDisk(error, out, needed, what);
      }),
      slices: table.slices,
      golden: [],
      ...(table.evaluation ? { evaluation: table.evaluation } : {}),
    };
    if (options.golden) manifest.golden.push(...(await golden(manifest, partial)));
    await writeDurably(join(partial, 'manifest.json'), `${JSON.stringify(Manifest.parse(manifest), null, 1)}\n`);
    return manifest;
  });

  async function golden(manifest: Manifest, partial: string): Promise<GoldenPrompt[]> {
    if (!packsForGolden(manifest)) return goldenPrompts(manifest, partial, onProgress, signal);
    await assertRoom(out, packedBytesAtMost(manifest), `${manifest.name}'s golden answers, made on packed weights,`);
    return goldenInChild({ manifest, storeDir: partial }, { onProgress, ...(signal && { signal }) });
  }

  async function chunksAt(partial: string, plan: PackagePlan): Promise<Chunk[]> {
    const dir = join(partial, 'chunks');
    await mkdir(dir);
    const encoders = new Encoders(options.threads ?? (plan.bytes < THREADS_FROM_BYTES ? 1 : Math.min(MOST_THREADS, availableParallelism())));
    try {
      return await writeChunks(checkpoint, plan, encoders, dir, (done, total) => onProgress({ step: 'weights', done, total }), signal);
    } finally {
      await encoders.close();
    }
  }
}

async function tokenizerBytes({ dir }: Checkpoint): Promise<number> {
  if (dir === undefined) return 0;
  const sizes = await Promise.all(
    TOKENIZER_FILES.map((file) =>
      stat(join(dir, file)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((a, b) => a + b, 0);
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
