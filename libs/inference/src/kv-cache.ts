import { slidingCapacity, type ModelConfig } from '@matfleet/model';
import { float32, floatsOf, type Feeds, type Tensor } from './onnx.js';

export interface CachedLayer {
  readonly layer: number;
  readonly sliding: boolean;
}

/**
 * Keys and values of the positions so far, one pair of buffers (1, K, C, d) per layer that owns them, C positions of room. A pass writes its
 * new positions behind the others, in place. Full-attention layers keep every position, sliding ones the last that a window still reaches:
 * before their room ends, what no window sees any more is moved out.
 */
export class KvCache {
  /** Positions computed so far. */
  length = 0;
  /** Positions that sliding layers hold now. */
  slidingLength = 0;
  readonly slidingCapacity: number;
  /** Layers whose positions are all there. */
  private whole: ReadonlySet<number>;
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
    this.whole = new Set(layers.map(({ layer }) => layer));
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { key, value }) => sum + 4 * (key.size + value.size), 0);
  }

  /** Forgets every position; the buffers stay. */
  reset(): void {
    this.length = 0;
    this.slidingLength = 0;
    this.whole = new Set(this.pairs.map(({ layer }) => layer));
  }

  /** Whether every position of these layers was computed: a slice that owns a layer which an earlier one skipped cannot go on from here. */
  holds(layers: readonly number[]): boolean {
    return layers.every((layer) => this.whole.has(layer));
  }

  /** Makes room for a pass over `count` new positions. */
  prepare(count: number): void {
    if (this.length + count > this.contextTokens) throw new Error(`${this.length} + ${count} positions exceed the context of ${this.contextTokens}`);
    if (this.slidingLength + count <= this.slidingCapacity) return;
    const kept = Math.min(this.slidingLength, this.config.slidingWindow - 1);
    if (kept + count > this.slidingCapacity) throw new Error(`a pass over ${count} positions; the cache was made for ${this.slidingCapacity - kept}`);
    for (const { sliding, key, value } of this.pairs) if (sliding) for (const tensor of [key, value]) this.keepLast(floatsOf(tensor), kept);
    this.slidingLength = kept;
  }

  /** After a pass over `count` positions that computed these layers. */
  advance(count: number, layers: readonly number[]): void {
    this.length += count;
    this.slidingLength += count;
    if (layers.length < this.whole.size) this.whole = new Set(layers.filter((layer) => this.whole.has(layer)));
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
