import { availableParallelism } from 'node:os';
import { bandEdges, chunksOf, sliceWidths, validateSlice, type Manifest, type ModelConfig, type Slice } from '@matfleet/model';
import { EmbeddingTables } from './embedding-tables.js';
import { buildForward, cachedLayers, keptLayers, sharingLayers, type SliceShape } from './gemma3n.js';
import { GraphBuilder } from './graph-builder.js';
import { loadBeside, sweepGraphs } from './graph-file.js';
import { KERNELS, type Provider } from './kernels.js';
import { KvCache, type ComputedBy } from './kv-cache.js';
import { createSession, float32, floatsOf, int32, int64, intsOf, type Feeds, type Session, type Spinning, type Tensor } from './onnx.js';
import { acceleratorBytes, type Placement } from './placement.js';
import { threadPolicy } from './thread-policy.js';
import { Weights, type WeightOptions } from './weights.js';

export interface DecoderOptions extends Omit<WeightOptions, 'kernels'> {
  readonly threads?: number;
  readonly spinning?: Spinning;
  /** Shared with other slices; by default the decoder opens its own and closes them with itself. */
  readonly tables?: EmbeddingTables;
  /** Let the graph count the positions that its sharing layers compute. */
  readonly trace?: boolean;
  /** `cpu` by default. */
  readonly provider?: Provider;
  /** Positions of one pass; by default as many as the provider's attention gets right on every device. */
  readonly mostPassTokens?: number;
}

/** Added to a score, leaves nothing of its weight. */
const OUTSIDE_WINDOW = -1e30;

/** One slice, loaded: token ids in, logits out. */
export class Decoder {
  /** Positions each kept K/V-sharing layer computed in the latest pass; filled when opened with `trace`. */
  sharedLayerPositions: readonly number[] = [];
  private closed = false;
  private released = false;
  private running: Promise<unknown> = Promise.resolve();
  /** Kept layers, and those among them whose keys and values this slice computes. */
  private readonly layers: readonly number[];
  readonly ownedLayers: readonly number[];
  /** How this slice signs the positions it computes. */
  readonly signature: ComputedBy;
  /** Whether the graph takes its sharing layers' window as a mask. */
  private readonly masked: boolean;
  /** Which provider computes what; of slices that run on an accelerator. */
  placement: Placement = {};
  /** A cache's buffers under this graph's names: the same objects pass after pass. */
  private readonly bindings = new WeakMap<KvCache, { feeds: Feeds; fetches: Feeds }>();

  private constructor(
    readonly config: ModelConfig,
    private readonly shape: SliceShape,
    private readonly session: Session,
    private readonly tables: EmbeddingTables,
    private readonly ownsTables: boolean,
    private readonly provider: Provider,
    private readonly mostPassTokens: number,
    trace: boolean,
  ) {
    this.layers = keptLayers(shape);
    this.ownedLayers = cachedLayers(shape).map(({ layer }) => layer);
    if (trace) this.sharedLayerPositions = [...sharingLayers(shape)].map(() => 0);
    this.masked = session.inputNames.includes('window_mask');
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
    const provider = options.provider ?? 'cpu';
    const kernels = KERNELS[provider];
    const weights = new Weights(manifest, chunks, storeDir, { ...options, kernels });
    let session: Session;
    try {
      buildForward(g, shape, weights, { trace: options.trace ?? false, kernels });
      const policy = threadPolicy('dedicated', config.hiddenSize, availableParallelism());
      const run = {
        threads: options.threads ?? policy.threads,
        spinning: options.spinning ?? policy.spinning,
        provider,
        observed: provider !== 'cpu',
        ...(kernels.keepsKeysAndValues && { kept: cachedLayers(shape).flatMap(({ layer }) => [`present.${layer}.key`, `present.${layer}.value`]) }),
      };
      if (weights.usesExternalData) await sweepGraphs(storeDir);
      session = weights.usesExternalData ? await loadBeside(storeDir, g.toBytes(), run) : await createSession(g.toBytes(), run);
    } finally {
      weights.close();
    }
    const tables = options.tables ?? new EmbeddingTables(manifest, chunks, storeDir);
    const mostPassTokens = options.mostPassTokens ?? kernels.mostPassTokens;
    const decoder = new Decoder(config, shape, session, tables, options.tables === undefined, provider, mostPassTokens, options.trace ?? false);
    if (provider !== 'cpu') await decoder.observe();
    return decoder;
  }

  /** One pass over one position tells what the accelerator takes. Closes the decoder when that is nothing. */
  private async observe(): Promise<void> {
    const cache = this.newCache(1, 1);
    try {
      await this.forward([this.config.bosTokenId], cache);
      this.placement = await this.session.placement();
      if (acceleratorBytes(this.placement) === 0)
        throw new Error(`${this.provider} opened, but computes none of the slice's products: ${Object.keys(this.placement).join(', ')} did`);
    } catch (error) {
      await cache.close();
      await this.close();
      throw error;
    }
    await cache.close();
  }

  /** `passTokens` is the most that one pass may bring. */
  newCache(contextTokens: number, passTokens: number): KvCache {
    return new KvCache(this.config, cachedLayers(this.shape), contextTokens, passTokens, this.provider);
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
    const { mostPassTokens } = this;
    if (S > mostPassTokens) throw new Error(`a pass over ${S} positions; ${this.provider} takes ${mostPassTokens} at most`);
    const { layers } = this;
    const [embeds, pleRows] = await Promise.all([this.tables.tokens.read(tokenIds), this.tables.ple.read(tokenIds, layers)]);
    await cache.prepare(S);
    const start = cache.length;
    const end = start + S;
    const feeds = {
      embeds: float32(embeds, [1, S, D]),
      ple_rows: float32(pleRows, [1, S, layers.length, P]),
      positions: int64(range(start, end)),
      wanted: int64(range(S - wanted, S)),
      ...keyCounts('full', end),
      ...keyCounts('sliding', cache.slidingLength + S),
      ...(this.masked && { window_mask: windowMask(wanted, cache.slidingLength + S, this.config.slidingWindow) }),
    };
    const logits = KERNELS[this.provider].keepsKeysAndValues ? await this.runKeeping(feeds, cache) : await this.runInPlace(feeds, cache, wanted);
    cache.advance(tokenIds, this.signature);
    return Array.from({ length: wanted }, (_, i) => logits.subarray(i * V, (i + 1) * V)); // views
  }

  /** Writes keys and values into the cache's buffers. */
  private async runInPlace(feeds: Feeds, cache: KvCache, wanted: number): Promise<Float32Array> {
    const { vocabSize: V } = this.config;
    const bound = this.bind(cache);
    const logits = new Float32Array(wanted * V);
    const seen = int64(this.sharedLayerPositions);
    await this.session.runInto(
      { ...feeds, ...bound.feeds },
      { ...bound.fetches, logits: float32(logits, [1, wanted, V]), ...(seen.size > 0 && { shared_positions: seen }) },
    );
    this.sharedLayerPositions = intsOf(seen);
    return logits;
  }

  /** Leaves keys and values with the accelerator. */
  private async runKeeping(feeds: Feeds, cache: KvCache): Promise<Float32Array> {
    const outputs = await cache.pass(this.signature, (past) => this.session.run({ ...feeds, ...past }));
    if (outputs['shared_positions']) this.sharedLayerPositions = intsOf(outputs['shared_positions']);
    return floatsOf(outputs['logits']!);
  }

  private bind(cache: KvCache): { feeds: Feeds; fetches: Feeds } {
    let bound = this.bindings.get(cache);
    if (!bound) {
      const sharing = KERNELS[this.provider].presentOfShared ? sharingLayers(this.shape) : new Map<number, number>();
      bound = { feeds: cache.feeds(this.ownedLayers), fetches: cache.fetches(this.ownedLayers, sharing) };
      this.bindings.set(cache, bound);
    }
    return bound;
  }

  /** Takes no further pass, and waits for the one under way. */
  async stop(): Promise<void> {
    this.closed = true;
    await this.running;
  }

  async close(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.stop();
    if (this.ownsTables) this.tables.close();
    await this.session.close();
  }
}

const keyCounts = (kind: string, count: number): Feeds => ({ [`keys_${kind}`]: int32(count, []), [`last_key_${kind}`]: int32(count - 1, [1]) });

/** (1, 1, W, T): what a query among the last W of T positions adds to its scores. */
function windowMask(W: number, T: number, window: number): Tensor {
  const mask = new Float32Array(W * T);
  for (let w = 0; w < W; w++) mask.fill(OUTSIDE_WINDOW, w * T, w * T + Math.max(0, T - W + w + 1 - window));
  return float32(mask, [1, 1, W, T]);
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
