import type { TokenLogprobs } from './engine-api.js';
import { best, type Choosable } from './sampler.js';

export const MOST_LOGPROBS = 20;

/** Natural logarithms of the model's own distribution at one place, (V) -> the chosen token's and the `count` best, over what can be chosen at all. */
export function logprobsAt(logits: Float32Array, chosen: number, count: number, vocab: Choosable): TokenLogprobs {
  const top = best(logits, Math.max(1, count), vocab);
  const highest = logits[top[0]!]!;
  let sum = 0;
  const end = Math.min(vocab.vocabSizePerLayerInput, logits.length);
  for (let id = 0; id < end; id++) if (id !== vocab.padTokenId && id !== vocab.bosTokenId) sum += Math.exp(logits[id]! - highest);
  const rest = highest + Math.log(sum);
  return { logprob: logits[chosen]! - rest, top: top.slice(0, count).map((tokenId) => ({ tokenId, logprob: logits[tokenId]! - rest })) };
}
