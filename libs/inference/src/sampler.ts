import type { ModelConfig } from '@matfleet/model';
import type { Constraint } from './constraint.js';
import type { SamplingOptions } from './engine-api.js';
import { isAllowed, type TokenMask } from './token-masks.js';

/** Chooses the next token from one row of logits, (V) -> id, among those that are allowed. Leaves the row as it is. */
export type Sampler = (logits: Float32Array, allowed?: Allowed) => number;

export type Allowed = Pick<Constraint, 'allows' | 'mask'>;

/** Of so many best tokens each is asked for before all that are allowed are looked for. */
const ASKED_ONE_BY_ONE = 64;

/** What of a model's config says which ids can be chosen. */
export type Choosable = Pick<ModelConfig, 'vocabSizePerLayerInput' | 'padTokenId' | 'bosTokenId'>;

/** Gemma 3n's published defaults, for the fields that a sampling request leaves out. */
const DEFAULTS = { temperature: 1, topK: 64, topP: 0.95 };

export const isGreedy = (sampling: SamplingOptions | undefined): boolean => !sampling || sampling.temperature === 0;

/**
 * Greedy without `sampling` (or at temperature 0), else temperature, then top-k, then top-p, as in transformers. `topK: 0` and `topP: 1` switch
 * a filter off. The same seed gives the same choices; without one they differ from run to run.
 *
 * `drawn` choices were made before, elsewhere: a seed's further ones are those of one run.
 * Never chosen: ids from vocabSizePerLayerInput on (soft tokens, whose embeddings repeat the pad row), <pad> and <bos>. Ties go to the lowest id.
 */
export function createSampler(sampling: SamplingOptions | undefined, vocab: Choosable, drawn = 0): Sampler {
  const { temperature, topK, topP } = sampling ? withDefaults(sampling) : { ...DEFAULTS, temperature: 0 };
  if (!(temperature >= 0 && temperature < Infinity)) throw new Error(`temperature is ${temperature}; it must be a number from 0 (greedy)`);
  if (!(Number.isInteger(topK) && topK >= 0)) throw new Error(`topK is ${topK}; it must be a whole number from 0 (no limit)`);
  if (!(topP > 0 && topP <= 1)) throw new Error(`topP is ${topP}; it must be above 0 and at most 1 (no limit)`);

  const none = (why: string): never => {
    throw new RangeError(`no token can be chosen: ${why}`);
  };
  const candidates = (logits: Float32Array, count: number, allowed?: Allowed): number[] => {
    const ids = allowed ? bestAllowed(logits, count, vocab, allowed) : best(logits, count, vocab);
    if (ids.length === 0) none(allowed ? 'the vocabulary has none that the format allows here' : `none of ${logits.length} logits is a number`);
    return ids;
  };
  if (temperature === 0) return (logits, allowed) => candidates(logits, 1, allowed)[0]!;
  const random = uniform(sampling?.seed ?? Math.floor(Math.random() * 2 ** 32));
  for (let i = 0; i < drawn; i++) random();
  return (logits, allowed) => {
    const ids = candidates(logits, topK === 0 ? Infinity : topK, allowed);
    // Softmax weights over what top-k kept; the best logit is subtracted so that exp never overflows.
    const weights = ids.map((id) => Math.exp((logits[id]! - logits[ids[0]!]!) / temperature));
    return ids[draw(weights, topP, random())]!;
  };
}

/** As `best`, of what is allowed. Mostly the model means what it was told, and a few questions are enough; only otherwise a mask is worth its cost. */
function bestAllowed(logits: Float32Array, count: number, vocab: Choosable, allowed: Allowed): number[] {
  for (const asked of [count, count + ASKED_ONE_BY_ONE])
    if (asked <= 4 * ASKED_ONE_BY_ONE) {
      const ids = best(logits, asked, vocab).filter((id) => allowed.allows(id));
      if (ids.length >= count) return ids.slice(0, count);
    }
  return best(logits, count, vocab, allowed.mask());
}

/** Ids of the `count` highest logits, best first; equal ones in order of their ids. NaN and -Infinity never count. */
export function best(logits: Float32Array, count: number, vocab: Choosable, mask?: TokenMask): number[] {
  const ids: number[] = [];
  const end = Math.min(vocab.vocabSizePerLayerInput, logits.length);
  let floor = -Infinity; // of the last id kept, once `count` are
  for (let id = 0; id < end; id++) {
    const logit = logits[id]!;
    if (!(logit > floor) || id === vocab.padTokenId || id === vocab.bosTokenId || (mask && !isAllowed(mask, id))) continue;
    if (count === Infinity) {
      ids.push(id);
      continue;
    }
    // Few candidates pass the floor, so inserting in place beats sorting the vocabulary.
    let at = ids.length;
    while (at > 0 && logits[ids[at - 1]!]! < logit) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
    if (ids.length === count) floor = logits[ids[count - 1]!]!;
  }
  return count === Infinity ? ids.sort((a, b) => logits[b]! - logits[a]! || a - b) : ids;
}

/** Index drawn from the shortest prefix of `weights` (descending) that holds `topP` of their sum; `at` in [0, 1) is where. */
function draw(weights: readonly number[], topP: number, at: number): number {
  const goal = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let kept = 0;
  let mass = 0;
  while (kept < weights.length && (kept === 0 || mass < goal)) mass += weights[kept++]!;
  let left = at * mass;
  for (let i = 0; i < kept - 1; i++) {
    left -= weights[i]!;
    if (left < 0) return i;
  }
  return kept - 1;
}

function withDefaults(sampling: SamplingOptions): typeof DEFAULTS {
  const { temperature = DEFAULTS.temperature, topK = DEFAULTS.topK, topP = DEFAULTS.topP } = sampling;
  return { temperature, topK, topP };
}

/** mulberry32: a small generator with 32 bits of state, good enough to draw tokens; values in [0, 1). */
function uniform(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
