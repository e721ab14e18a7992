import { chunksOf, footprint, prefillChunkTokens, sliceById, type Manifest, type Slice } from '@matfleet/model';
import { LRUCache } from 'lru-cache';
import { rightPassTokens } from './attention-check.js';
import { Decoder } from './decoder.js';
import { EmbeddingTables } from './embedding-tables.js';
import { cachedLayers } from './gemma3n.js';
import { KERNELS, type Provider } from './kernels.js';
import { KvCache } from './kv-cache.js';
import type { Spinning } from './onnx.js';
import { acceleratorBytes } from './placement.js';
import { readPrepared, type Prepared } from './prepared.js';

export interface SliceSetOptions {
  readonly threads?: number;
  readonly hotRowBytes?: number;
  readonly spinning?: Spinning;
  readonly provider: Provider;
  /** Slices loaded at the same time. */
  readonly mostOpen: number;
}

/**
 * The slices of one model in one process. They read the same mapped weights and the same embedding tables, and pass one K/V cache on, so
 * that an answer may change slice between two tokens. Each open slice is a session; the least recently used one makes room for another.
 */
export class SliceSet {
  private readonly open: LRUCache<string, Decoder>;
  private readonly closing = new Set<Promise<void>>();
  private readonly loading = new Set<Promise<unknown>>();
  private readonly caches: KvCache[] = [];

  private constructor(
    private readonly manifest: Manifest,
    private readonly slices: readonly Slice[],
    readonly tables: EmbeddingTables,
    load: (slice: Slice) => Promise<Decoder>,
    mostOpen: number,
    private readonly provider: Provider,
    /** Positions of a prompt that one pass takes. */
    readonly passTokens: number,
  ) {
    this.open = new LRUCache<string, Decoder>({
      max: mostOpen,
      fetchMethod: (id) => load(sliceById(manifest, id)),
      ignoreFetchAbort: true,
      dispose: (decoder) => {
        const closing = this.closeOne(decoder).finally(() => this.closing.delete(closing));
        this.closing.add(closing);
      },
    });
  }

  /** `storeDir` holds the chunks of all `slices`. Nothing is loaded yet. */
  static async create(manifest: Manifest, storeDir: string, slices: readonly Slice[], options: SliceSetOptions): Promise<SliceSet> {
    const needed = new Set(slices.flatMap((slice) => chunksOf(manifest, slice)));
    const prepared = KERNELS[options.provider].packs ? await largestPrepared(manifest, storeDir, slices) : undefined;
    const passTokens = await rightPassTokens(options.provider, manifest.config, prefillChunkTokens(manifest.config));
    const tables = new EmbeddingTables(manifest, [...needed], storeDir, options.hotRowBytes);
    const load = (slice: Slice): Promise<Decoder> =>
      Decoder.open(manifest, storeDir, slice, {
        tables,
        provider: options.provider,
        mostPassTokens: passTokens,
        ...(prepared && { prepared }),
        ...(options.threads !== undefined && { threads: options.threads }),
        ...(options.spinning !== undefined && { spinning: options.spinning }),
      });
    return new SliceSet(manifest, slices, tables, load, options.mostOpen, options.provider, passTokens);
  }

  /** The loaded slice; loads it first where it is not open. */
  async use(sliceId: string): Promise<Decoder> {
    if (!this.slices.some(({ id }) => id === sliceId))
      throw new Error(`slice "${sliceId}" is not one of this engine's: ${this.slices.map(({ id }) => id).join(', ')}`);
    const loading = this.open.fetch(sliceId).finally(() => this.loading.delete(loading));
    this.loading.add(loading);
    return (await loading)!;
  }

  /** Ids of the slices that are loaded now. */
  get openIds(): string[] {
    return [...this.open.keys()];
  }

  /** Of the open slices, on an accelerator. */
  get acceleratorBytes(): number {
    return [...this.open.values()].reduce((sum, { placement }) => sum + acceleratorBytes(placement), 0);
  }

  /** Room for every layer that any of the slices owns. */
  newCache(contextTokens: number, passTokens: number): KvCache {
    const { config } = this.manifest;
    const layers = new Map(this.slices.flatMap((slice) => cachedLayers({ config, slice })).map((entry) => [entry.layer, entry]));
    const cache = new KvCache(
      config,
      [...layers.values()].sort((a, b) => a.layer - b.layer),
      contextTokens,
      passTokens,
      this.provider,
    );
    this.caches.push(cache);
    return cache;
  }

  private async closeOne(decoder: Decoder): Promise<void> {
    await decoder.stop();
    await Promise.all(this.caches.map((cache) => cache.leave(decoder.signature)));
    await decoder.close();
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.loading);
    // A cache's buffers go before the last session does: with that goes the accelerator's context.
    await Promise.all([...this.open.values()].map((decoder) => decoder.stop()));
    await Promise.all(this.caches.map((cache) => cache.close()));
    this.open.clear();
    await Promise.all(this.closing);
    this.tables.close();
  }
}

/** What was prepared for the largest of these slices serves the others too, as far as they are parts of it. */
async function largestPrepared(manifest: Manifest, storeDir: string, slices: readonly Slice[]): Promise<Prepared | undefined> {
  const bytes = (slice: Slice): number => footprint(manifest, slice, 1).weightsBytes;
  for (const slice of [...slices].sort((a, b) => bytes(b) - bytes(a))) {
    const prepared = await readPrepared(manifest, storeDir, slice);
    if (prepared) return prepared;
  }
  return undefined;
}
