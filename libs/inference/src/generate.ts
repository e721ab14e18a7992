import type { ModelConfig } from '@matfleet/model';
import type { Constraint } from './constraint.js';
import type { Decoder } from './decoder.js';
import type { Format, GenerateOptions, GenerateResult, TokenEvent } from './engine-api.js';
import type { KvCache } from './kv-cache.js';
import { eager, paceAfter, proposeDraft } from './ngram-draft.js';
import { logprobsAt, MOST_LOGPROBS } from './logprobs.js';
import { reusablePositions } from './prefix-reuse.js';
import { createSampler, isGreedy } from './sampler.js';
import { createStopText } from './stop-text.js';

export interface TextStream {
  push(tokenId: number): string;
  end(): string;
}

/**
 * Decodes after `promptIds` until a stop token, the token limit, a full context or an abort. `use` loads a slice, `chunkTokens`
 * is the most that one pass takes, `now` is in milliseconds. `cache` may come from an earlier answer: what fits is used again.
 */
export async function* generate(
  use: (sliceId: string) => Promise<Decoder>,
  config: ModelConfig,
  defaultSliceId: string,
  cache: KvCache,
  promptIds: readonly number[],
  options: GenerateOptions,
  chunkTokens: number,
  textStream: () => TextStream,
  constrain: (format: Format) => Constraint = noVocabulary,
  now: () => number = () => performance.now(),
): AsyncGenerator<TokenEvent, GenerateResult> {
  const startedAt = now();
  const maxTokens = options.maxTokens ?? Infinity;
  const answered = options.answered ?? [];
  const ids = [...promptIds, ...answered];
  if (promptIds.length === 0) throw new Error('the prompt is empty');
  checkIds(ids, config, cache.contextTokens);
  if (!(maxTokens >= 1)) throw new Error(`maxTokens is ${maxTokens}; it must be at least 1`);
  const draftTokens = options.draftTokens ?? 0;
  if (!(Number.isInteger(draftTokens) && draftTokens >= 0 && draftTokens < chunkTokens))
    throw new Error(`draftTokens is ${draftTokens}; this model takes 0 to ${chunkTokens - 1}`);
  const { topLogprobs } = options;
  if (topLogprobs !== undefined && !(Number.isInteger(topLogprobs) && topLogprobs >= 0 && topLogprobs <= MOST_LOGPROBS))
    throw new RangeError(`topLogprobs is ${topLogprobs}; it must be 0 to ${MOST_LOGPROBS}`);
  const choose = createSampler(options.sampling, config, answered.length);
  const constraint = options.format && constrain(options.format);
  const stopText = createStopText(options.stop ?? []);
  const stops = new Set(config.eosTokenIds);
  const text = textStream();
  let whole = '';
  let [newTokens, firstAt, lastAt, draftedTokens, acceptedTokens] = [0, 0, 0, 0, 0];

  const result = (reason: GenerateResult['reason'], tail = stopText.push(text.end()).text + stopText.end()): GenerateResult => ({
    reason,
    outputTokens: answered.length + newTokens,
    promptTokens: promptIds.length,
    cachedPromptTokens,
    draftedTokens,
    acceptedTokens,
    ttftMs: newTokens > 0 ? firstAt - startedAt : 0,
    tokensPerSecond: newTokens > 1 && lastAt > firstAt ? ((newTokens - 1) * 1000) / (lastAt - firstAt) : 0,
    text: whole + tail,
    tail,
  });

  let sliceId = options.sliceId ?? defaultSliceId;
  let decoder = await use(sliceId);

  /** Logits after `ids`, whose first positions the cache holds; undefined when aborted on the way. */
  const prefill = async (): Promise<Float32Array | undefined> => {
    let logits: Float32Array | undefined;
    while (cache.length < ids.length) {
      if (options.signal?.aborted) return undefined;
      logits = (await decoder.forward(ids.slice(cache.length, cache.length + chunkTokens), cache))[0];
      await breathe();
    }
    return logits;
  };

  /** Takes a chosen token; the text that it makes certain. */
  const take = (tokenId: number): { readonly text: string; readonly stopped: boolean } => {
    const piece = stopText.push(text.push(tokenId));
    whole += piece.text;
    constraint?.accept(tokenId);
    return piece;
  };
  /** Why nothing can follow the answer so far; undefined when something can. */
  const ended = (stopped: boolean): GenerateResult['reason'] | undefined => {
    if (stopped || constraint?.ended) return 'stop';
    if (answered.length + newTokens >= maxTokens) return 'max-tokens';
    return ids.length > cache.contextTokens ? 'context-full' : undefined;
  };

  const cached = reusablePositions(cache, ids, decoder.signature, options.reuse ?? 'exact');
  const cachedPromptTokens = Math.min(promptIds.length, cached);
  let stopped = false;
  for (const tokenId of answered) {
    if (stops.has(tokenId)) throw new RangeError(`the answer so far holds ${tokenId}, a token that ends answers`);
    if (stopped) throw new RangeError(`the answer so far goes on after a stop text`);
    ({ stopped } = take(tokenId));
  }
  if (answered.length > 0) {
    const end = ended(stopped);
    if (end) return stopped ? result(end, '') : result(end);
  }
  cache.rollBack(cached);
  let logits = await prefill();
  // A draft's tokens are computed before they are chosen: `ahead[i]` are the logits after `draft[i]`, and the first `right` of them were chosen.
  let [draft, ahead, right]: [number[], Float32Array[], number] = [[], [], 0];
  const mostDrafted = isGreedy(options.sampling) ? draftTokens : 0;
  let pace = eager;
  for (;;) {
    if (options.signal?.aborted) return result('cancelled');
    const tokenId = choose(logits!, constraint);
    lastAt = now();
    if (newTokens === 0) firstAt = lastAt;
    if (stops.has(tokenId)) return result('stop');
    newTokens++;
    ids.push(tokenId);
    const piece = take(tokenId);
    const logprobs = topLogprobs === undefined ? undefined : logprobsAt(logits!, tokenId, topLogprobs, config);
    yield { tokenId, text: piece.text, sliceId, ...(logprobs && { logprobs }) };
    const end = ended(piece.stopped);
    if (end) return piece.stopped ? result(end, '') : result(end);
    if (options.signal?.aborted) return result('cancelled');
    const next = options.sliceFor?.(answered.length + newTokens) ?? sliceId;
    const changed = next !== sliceId;
    if (changed) [sliceId, decoder] = [next, await use(next)];
    if (!changed && draft[right] === tokenId) {
      logits = ahead[right++];
      acceptedTokens++;
    } else {
      // What is left of the draft followed another token, or another slice computed it.
      cache.rollBack(ids.length - 1);
      pace = paceAfter(pace, draft.length, right);
      [draft, ahead, right] = [[], [], 0];
      if (changed && (options.onSwitch === 'prefill' || !cache.holds(decoder.ownedLayers))) {
        cache.reset();
        logits = await prefill();
      } else {
        const useful = Math.min(mostDrafted, maxTokens - answered.length - newTokens - 1, cache.contextTokens - ids.length);
        draft = pace.wait === 0 ? proposeDraft(ids, useful) : [];
        draftedTokens += draft.length;
        [logits, ...ahead] = await decoder.forward([tokenId, ...draft], cache, draft.length + 1);
      }
    }
    await breathe();
  }
}

const noVocabulary = (): never => {
  throw new RangeError('an answer can be held to a format only where there is a vocabulary');
};

/** Passes block their thread; between two, timers, sockets and an abort get their turn. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function checkIds(ids: readonly number[], config: ModelConfig, contextTokens: number): void {
  if (ids.length > contextTokens) throw new Error(`the prompt has ${ids.length} tokens, the context holds ${contextTokens}`);
  for (const id of ids)
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize)
      throw new RangeError(`token id ${id} is outside the vocabulary of ${config.vocabSize}`);
}
