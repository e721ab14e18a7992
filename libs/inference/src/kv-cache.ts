import { slidingCapacity, type ModelConfig } from '@matfleet/model';
import { float32, floatsOf, type Feeds, type Tensor } from './onnx.js';

export interface CachedLayer {
  readonly layer: number;
  readonly sliding: boolean;
}

/** What computed a position: the shape of a slice, and the layers whose keys and values it wrote. */
export interface ComputedBy {
  readonly shape: string;
  readonly layers: readonly number[];
}

/**
 * Keys and values of the positions so far, one pair of buffers (1, K, C, d) per layer that owns them, C positions of room. A pass writes its
 * new positions behind the others, in place. Full-attention layers keep every position, sliding ones the last that a window still reaches:
 * before their room ends, what no window sees any more is moved out.
 */
export class KvCache {
  /** Positions that sliding layers hold now. */
  slidingLength = 0;
  readonly slidingCapacity: number;
  private readonly ids: number[] = [];
  /** Who computed the positions, in runs, each up to but not including `end`. */
  private runs: { readonly by: ComputedBy; readonly end: number }[] = [];
  private readonly pairs: (CachedLayer & { readonly key: Tensor; readonly value: Tensor })[];

  /** `passTokens` is the most that `advance` is called with. */
  constructor(
    private readonly config: ModelConfig,
    layers: readonly CachedLayer[],
    readonly contextTokens: number,
    passTokens: number,
  ) {
    this.slidingCapacity = slidingCapacity(config, contextTokens, passTokens);
    const { numKeyValueHeads: K, headDim: d } = config;
    this.pairs = layers.map(({ layer, sliding }) => {
      const room = sliding ? this.slidingCapacity : contextTokens;
      const buffer = (): Tensor => float32(new Float32Array(K * room * d), [1, K, room, d]);
      return { layer, sliding, key: buffer(), value: buffer() };
    });
  }

  /** The token at each position computed so far. */
  get tokenIds(): readonly number[] {
    return this.ids;
  }

  /** Positions computed so far. */
  get length(): number {
    return this.ids.length;
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { key, value }) => sum + 4 * (key.size + value.size), 0);
  }

  /** Forgets every position; the buffers stay. */
  reset(): void {
    this.rollBack(0);
  }

  /** Whether the sliding layers still hold what the position after the first `length` ones sees. */
  reaches(length: number): boolean {
    const held = this.slidingLength - (this.length - length);
    return length === 0 || (length <= this.length && held >= Math.min(length, this.config.slidingWindow - 1));
  }

  /** Forgets all but the first `length` positions. The last pass can always be taken back; what else can, `reaches` tells. */
  rollBack(length: number): void {
    if (!this.reaches(length)) throw new Error(`back from ${this.length} to ${length} positions; sliding layers hold the last ${this.slidingLength}`);
    this.slidingLength = Math.max(0, this.slidingLength - (this.length - length));
    this.ids.length = length;
    const whole = this.runs.filter(({ end }) => end <= length);
    const cut = this.runs[whole.length];
    if (cut && (whole.at(-1)?.end ?? 0) < length) whole.push({ by: cut.by, end: length });
    this.runs = whole;
  }

  /** Positions from the first on whose computation `accepts`. */
  leading(accepts: (by: ComputedBy) => boolean): number {
    const stop = this.runs.findIndex(({ by }) => !accepts(by));
    return stop < 0 ? this.length : (this.runs[stop - 1]?.end ?? 0);
  }

  /** Whether every position of these layers was computed: a slice that owns a layer which an earlier one skipped cannot go on from here. */
  holds(layers: readonly number[]): boolean {
    return this.leading((by) => layers.every((layer) => by.layers.includes(layer))) === this.length;
  }

  /** Makes room for a pass over `count` new positions. */
  prepare(count: number): void {
    if (this.length + count > this.contextTokens) throw new Error(`${this.length} + ${count} positions exceed the context of ${this.contextTokens}`);
    if (this.slidingLength + count <= this.slidingCapacity) return;
    const window = this.config.slidingWindow - 1;
    const spare = this.slidingCapacity - window - count;
    if (spare < 0) throw new Error(`a pass over ${count} positions; the cache was made for ${this.slidingCapacity - window}`);
    // Half of the room that is left goes to the past, so that the next prompt may leave this one's path a little earlier; half saves moves.
    const kept = Math.min(this.slidingLength, window + Math.floor(spare / 2));
    for (const { sliding, key, value } of this.pairs) if (sliding) for (const tensor of [key, value]) this.keepLast(floatsOf(tensor), kept);
    this.slidingLength = kept;
  }

  /** After a pass over these tokens. */
  advance(tokenIds: readonly number[], by: ComputedBy): void {
    this.ids.push(...tokenIds);
    this.slidingLength += tokenIds.length;
    if (this.runs.at(-1)?.by.shape === by.shape) this.runs.pop();
    this.runs.push({ by, end: this.length });
  }

  feeds(layers: readonly number[]): Feeds {
    return this.named('past', layers);
  }

  /** The same buffers as outputs: a pass writes into them. `sharing` are layers that read another layer's keys and values, by that layer. */
  fetches(layers: readonly number[], sharing: ReadonlyMap<number, number>): Feeds {
    const owners = new Map(this.pairs.map((pair) => [pair.layer, pair]));
    const shared = [...sharing].flatMap(([layer, donor]) => {
      const { key, value } = owners.get(donor)!;
      return [
        [`present.${layer}.key`, key],
        [`present.${layer}.value`, value],
      ];
    });
    return { ...this.named('present', layers), ...Object.fromEntries(shared) };
  }

  private named(prefix: string, layers: readonly number[]): Feeds {
    return Object.fromEntries(
      this.pairs
        .filter(({ layer }) => layers.includes(layer))
        .flatMap(({ layer, key, value }) => [
          [`${prefix}.${layer}.key`, key],
          [`${prefix}.${layer}.value`, value],
        ]),
    );
  }

  private keepLast(values: Float32Array, kept: number): void {
    const { numKeyValueHeads: K, headDim: d } = this.config;
    const stride = this.slidingCapacity * d;
    for (let head = 0; head < K; head++) {
      const end = head * stride + this.slidingLength * d;
      values.copyWithin(head * stride, end - kept * d, end);
    }
  }
}
