import type { ModelConfig } from '@matfleet/model';
import { float32, type Feeds, type Tensor } from './onnx.js';

/**
 * Keys and values of the positions so far, one pair (1, K, T, d) per layer that owns them. Full-attention layers keep every position,
 * sliding ones the last `slidingWindow − 1`: what the next position's window still reaches. Not more than `contextTokens` positions.
 */
export class KvCache {
  /** Positions computed so far. */
  length = 0;
  private pairs: { layer: number; key: Tensor; value: Tensor }[];

  constructor(
    private readonly config: ModelConfig,
    layers: readonly number[],
    readonly contextTokens: number,
  ) {
    const empty = (): Tensor => float32(new Float32Array(0), [1, config.numKeyValueHeads, 0, config.headDim]);
    this.pairs = layers.map((layer) => ({ layer, key: empty(), value: empty() }));
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { key, value }) => sum + 4 * (key.size + value.size), 0);
  }

  /** Positions that sliding layers still hold. */
  get slidingLength(): number {
    return Math.min(this.length, this.config.slidingWindow - 1);
  }

  feeds(): Feeds {
    return Object.fromEntries(
      this.pairs.flatMap(({ layer, key, value }) => [
        [`past.${layer}.key`, key],
        [`past.${layer}.value`, value],
      ]),
    );
  }

  /** Takes over what a pass over `count` new positions produced. */
  advance(results: Record<string, Tensor>, count: number): void {
    if (this.length + count > this.contextTokens) throw new Error(`${this.length} + ${count} positions exceed the context of ${this.contextTokens}`);
    this.pairs = this.pairs.map(({ layer }) => ({ layer, key: results[`present.${layer}.key`]!, value: results[`present.${layer}.value`]! }));
    this.length += count;
  }
}
