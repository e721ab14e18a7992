import type { ModelConfig } from '@matfleet/model';
import { GraphBuilder } from './graph-builder.js';
import { KERNELS, type Provider } from './kernels.js';
import { createSession, float32, floatsOf, int32, type Tensor } from './onnx.js';

/** Far above rounding, far below what a wrong kernel does: outputs reach 0.1 to 1. */
const TOLERANCE = 1e-3;

export interface AttentionShape {
  readonly heads: number;
  readonly keyHeads: number;
  readonly width: number;
}

/** One attention operator over a context that ends with the queries' own positions. */
export interface AttentionCase {
  readonly queries: number;
  readonly context: number;
  /** -1: none. */
  readonly window: number;
  /** Keys and values are all there already, as in a layer that reads another's. */
  readonly shares: boolean;
}

/**
 * `wanted` positions of one pass where the provider's attention gets them right on this device, otherwise as many as it gets right everywhere:
 * one driver is wrong from 32 new positions on where another is right. Throws where the machine lacks the provider.
 */
export async function rightPassTokens(provider: Provider, config: ModelConfig, wanted: number): Promise<number> {
  const { mostPassTokens } = KERNELS[provider];
  if (wanted <= mostPassTokens) return wanted;
  const shape = { heads: config.numAttentionHeads, keyHeads: config.numKeyValueHeads, width: config.headDim };
  for (const queries of new Set([Math.min(32, wanted), wanted]))
    for (const window of [-1, config.slidingWindow]) {
      const one = { queries, context: window < 0 ? queries : window + queries, window, shares: false };
      const [got, want] = [await attend(shape, one, provider), await attend(shape, one, 'cpu')];
      // Not a number is no smaller either.
      if (!got.every((value, i) => Math.abs(value - want[i]!) < TOLERANCE)) return mostPassTokens;
    }
  return wanted;
}

/** The operator's output over pseudo-random inputs: the same for the same case. */
export async function attend(
  { heads, keyHeads, width }: AttentionShape,
  { queries, context, window, shares }: AttentionCase,
  provider: Provider,
): Promise<Float32Array> {
  const g = new GraphBuilder();
  const fresh = shares ? 0 : queries;
  const room = Math.max(context, 128);
  const shapes: Record<string, number[]> = {
    query: [1, queries, heads * width],
    key: [1, fresh, keyHeads * width],
    value: [1, fresh, keyHeads * width],
    past_key: [1, keyHeads, room, width],
    past_value: [1, keyHeads, room, width],
  };
  const inputs = [...Object.entries(shapes).map(([name, dims]) => g.input(name, 'float32', dims))];
  inputs.push(g.input('last', 'int32', [1]), g.input('length', 'int32', []));
  const attributes = { num_heads: heads, kv_num_heads: keyHeads, scale: { float: 1 }, local_window_size: window };
  const [output, presentKey, presentValue] = g.contribs('GroupQueryAttention', inputs, 3, attributes) as [string, string, string];
  g.output('output', output, 'float32', [1, queries, heads * width]);
  g.rename(presentKey, 'present_key', 'float32', [1, keyHeads, room, width]);
  g.rename(presentValue, 'present_value', 'float32', [1, keyHeads, room, width]);
  let state = 1;
  const random = (dims: number[]): Tensor => {
    const next = (): number => ((state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32) * 2 - 1;
    return float32(Float32Array.from({ length: dims.reduce((a, b) => a * b) }, next), dims);
  };
  const session = await createSession(g.toBytes(), { threads: 1, provider });
  const values = Object.fromEntries(Object.entries(shapes).map(([name, dims]) => [name, random(dims)]));
  try {
    const { output: result } = await session.run({ ...values, last: int32(context - 1, [1]), length: int32(context, []) });
    return floatsOf(result!);
  } finally {
    await session.close();
  }
}
