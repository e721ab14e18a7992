import { randomUUID } from 'node:crypto';
import { unlink, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { bandEdges, chunksOf, sliceWidths, validateSlice, type Manifest, type ModelConfig, type Slice } from '@matfleet/model';
import { EmbeddingTables } from './embedding-tables.js';
import { buildForward, cachedLayers, keptLayers, sharingLayers, type SliceShape } from './gemma3n.js';
import { GraphBuilder } from './graph-builder.js';
import { KvCache, type ComputedBy } from './kv-cache.js';
import { createSession, float32, int32, int64, intsOf, type Feeds, type Session, type SessionOptions, type Spinning } from './onnx.js';
import { threadPolicy } from './thread-policy.js';
import { Weights, type WeightOptions } from './weights.js';

export interface DecoderOptions extends WeightOptions {
  readonly threads?: number;
  readonly spinning?: Spinning;
  /** Shared with other slices; by default the decoder opens its own and closes them with itself. */
  readonly tables?: EmbeddingTables;
  /** Let the graph count the positions that its sharing layers compute. */
  readonly trace?: boolean;
  /** Save the graph with packed weights into this folder. */
  readonly saveTo?: string;
}

/** One slice, loaded: token ids in, logits out. */
export class Decoder {
  /** Positions each kept K/V-sharing layer computed in the latest pass; filled when opened with `trace`. */
  sharedLayerPositions: readonly number[] = [];
  private closed = false;
  private running: Promise<unknown> = Promise.resolve();
  /** Kept layers, and those among them whose keys and values this slice computes. */
  private readonly layers: readonly number[];
  readonly ownedLayers: readonly number[];
  /** How this slice signs the positions it computes. */
  readonly signature: ComputedBy;
  /** A cache's buffers under this graph's names: the same objects pass after pass. */
  private readonly bindings = new WeakMap<KvCache, { feeds: Feeds; fetches: Feeds }>();

  private constructor(
    readonly config: ModelConfig,
    private readonly shape: SliceShape,
    private readonly session: Session,
    private readonly tables: EmbeddingTables,
    private readonly ownsTables: boolean,
    trace: boolean,
  ) {
    this.layers = keptLayers(shape);
    this.ownedLayers = cachedLayers(shape).map(({ layer }) => layer);
    if (trace) this.sharedLayerPositions = [...sharingLayers(shape)].map(() => 0);
    this.signature = { shape: shape.widths.join(), layers: this.ownedLayers };
  }

  /** `storeDir` holds `chunks/` with every chunk of the slice, verified. */
  static async open(manifest: Manifest, storeDir: string, slice: Pick<Slice, 'ffn' | 'skip'>, options: DecoderOptions = {}): Promise<Decoder> {
    const { config } = manifest;
    const edges = bandEdges(manifest);
    validateSlice(config, slice, edges);
    const shape: SliceShape = { config, slice, widths: sliceWidths(config, slice), bandEdges: edges };
    const chunks = chunksOf(manifest, slice);
    const g = new GraphBuilder();
    const weights = new Weights(manifest, chunks, storeDir, options);
    let session: Session;
    try {
      buildForward(g, shape, weights, options.trace);
      const policy = threadPolicy('dedicated', config.hiddenSize, availableParallelism());
      session = await load(g.toBytes(), weights.usesExternalData ? storeDir : undefined, {
        threads: options.threads ?? policy.threads,
        spinning: options.spinning ?? policy.spinning,
        ...(options.saveTo !== undefined && { saveTo: options.saveTo }),
      });
    } finally {
      weights.close();
    }
    const tables = options.tables ?? new EmbeddingTables(manifest, chunks, storeDir);
    return new Decoder(config, shape, session, tables, options.tables === undefined, options.trace ?? false);
  }

  /** `passTokens` is the most that one pass may bring. */
  newCache(contextTokens: number, passTokens: number): KvCache {
    return new KvCache(this.config, cachedLayers(this.shape), contextTokens, passTokens);
  }

  /** One pass over S new positions. Advances `cache` by S. Returns logits (V) of the last `wanted` of them, in order. */
  async forward(tokenIds: readonly number[], cache: KvCache, wanted = 1): Promise<Float32Array[]> {
    if (this.closed) throw new Error('the model was closed');
    const pass = this.pass(tokenIds, cache, wanted);
    this.running = pass.catch(() => undefined);
    return pass;
  }

  private async pass(tokenIds: readonly number[], cache: KvCache, wanted: number): Promise<Float32Array[]> {
    const { hiddenSize: D, hiddenSizePerLayerInput: P, vocabSize: V } = this.config;
    for (const id of tokenIds) if (!Number.isInteger(id) || id < 0 || id >= V) throw new Error(`token id ${id} is outside the vocabulary of ${V}`);
    const S = tokenIds.length;
    const { layers } = this;
    const [embeds, pleRows] = await Promise.all([this.tables.tokens.read(tokenIds), this.tables.ple.read(tokenIds, layers)]);
    cache.prepare(S);
    const start = cache.length;
    const end = start + S;
    const bound = this.bind(cache);
    const feeds = {
      embeds: float32(embeds, [1, S, D]),
      ple_rows: float32(pleRows, [1, S, layers.length, P]),
      positions: int64(range(start, end)),
      wanted: int64(range(S - wanted, S)),
      ...keyCounts('full', end),
      ...keyCounts('sliding', cache.slidingLength + S),
      ...bound.feeds,
    };
    const logits = new Float32Array(wanted * V);
    const seen = int64(this.sharedLayerPositions);
    await this.session.runInto(feeds, {
      ...bound.fetches,
      logits: float32(logits, [1, wanted, V]),
      ...(seen.size > 0 && { shared_positions: seen }),
    });
    cache.advance(tokenIds, this.signature);
    this.sharedLayerPositions = intsOf(seen);
    return Array.from({ length: wanted }, (_, i) => logits.subarray(i * V, (i + 1) * V)); // views
  }

  private bind(cache: KvCache): { feeds: Feeds; fetches: Feeds } {
    let bound = this.bindings.get(cache);
    if (!bound) {
      bound = { feeds: cache.feeds(this.ownedLayers), fetches: cache.fetches(this.ownedLayers, sharingLayers(this.shape)) };
      this.bindings.set(cache, bound);
    }
    return bound;
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.running;
    if (this.ownsTables) this.tables.close();
    await this.session.close();
  }
}

const keyCounts = (kind: string, count: number): Feeds => ({ [`keys_${kind}`]: int32(count, []), [`last_key_${kind}`]: int32(count - 1, [1]) });
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** External data is found relative to the graph's own folder, so the graph lies beside `chunks/` while it loads. */
async function load(graph: Uint8Array, storeDir: string | undefined, options: SessionOptions): Promise<Session> {
  if (!storeDir) return createSession(graph, options);
  const path = join(storeDir, `.graph-${randomUUID()}.onnx`);
  try {
    await writeFile(path, graph);
    return await createSession(path, options);
  } finally {
    await unlink(path).catch(() => undefined);
  }
}
