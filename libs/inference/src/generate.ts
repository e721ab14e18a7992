import type { ModelConfig } from '@matfleet/model';
import type { Decoder } from './decoder.js';
import type { GenerateOptions, GenerateResult, TokenEvent } from './engine-api.js';
import type { KvCache } from './kv-cache.js';
import { createSampler } from './sampler.js';

export interface TextStream {
  push(tokenId: number): string;
  end(): string;
}

/** Decodes after `promptIds` until a stop token, the token limit, a full context or an abort. `use` loads a slice. `now` is in milliseconds. */
export async function* generate(
  use: (sliceId: string) => Promise<Decoder>,
  config: ModelConfig,
  defaultSliceId: string,
  cache: KvCache,
  promptIds: readonly number[],
  options: GenerateOptions,
  chunkTokens: number,
  textStream: () => TextStream,
  now: () => number = () => performance.now(),
): AsyncGenerator<TokenEvent, GenerateResult> {
  const startedAt = now();
  const maxTokens = options.maxTokens ?? Infinity;
  checkPrompt(promptIds, config, cache.contextTokens);
  if (!(maxTokens >= 1)) throw new Error(`maxTokens is ${maxTokens}; it must be at least 1`);
  const choose = createSampler(options.sampling, config);
  const stops = new Set(config.eosTokenIds);
  const text = textStream();
  let whole = '';
  let [outputTokens, firstAt, lastAt] = [0, 0, 0];

  const result = (reason: GenerateResult['reason']): GenerateResult => ({
    reason,
    outputTokens,
    promptTokens: promptIds.length,
    ttftMs: outputTokens > 0 ? firstAt - startedAt : 0,
    tokensPerSecond: outputTokens > 1 && lastAt > firstAt ? ((outputTokens - 1) * 1000) / (lastAt - firstAt) : 0,
    text: whole + text.end(),
  });

  /** Logits after `ids`, computed from nothing; undefined when aborted on the way. */
  const prefill = async (ids: readonly number[]): Promise<Float32Array | undefined> => {
    cache.reset();
    let logits: Float32Array | undefined;
    for (let at = 0; at < ids.length; at += chunkTokens) {
      if (options.signal?.aborted) return undefined;
      logits = (await decoder.forward(ids.slice(at, at + chunkTokens), cache))[0];
      await breathe();
    }
    return logits;
  };

  let sliceId = options.sliceId ?? defaultSliceId;
  let decoder = await use(sliceId);
  const ids = [...promptIds];
  let logits = await prefill(ids);
  for (;;) {
    if (options.signal?.aborted) return result('cancelled');
    const tokenId = choose(logits!);
    lastAt = now();
    if (outputTokens++ === 0) firstAt = lastAt;
    if (stops.has(tokenId)) {
      outputTokens--;
      return result('stop');
    }
    const piece = text.push(tokenId);
    whole += piece;
    ids.push(tokenId);
    yield { tokenId, text: piece, sliceId };
    if (outputTokens >= maxTokens) return result('max-tokens');
    if (cache.length >= cache.contextTokens) return result('context-full');
    if (options.signal?.aborted) return result('cancelled');
    const next = options.sliceFor?.(outputTokens) ?? sliceId;
    const changed = next !== sliceId;
    if (changed) [sliceId, decoder] = [next, await use(next)];
    if (changed && (options.onSwitch === 'prefill' || !cache.holds(decoder.ownedLayers))) logits = await prefill(ids);
    else logits = (await decoder.forward([tokenId], cache))[0];
    await breathe();
  }
}

/** Passes block their thread; between two, timers, sockets and an abort get their turn. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function checkPrompt(promptIds: readonly number[], config: ModelConfig, contextTokens: number): void {
  if (promptIds.length === 0) throw new Error('the prompt is empty');
  if (promptIds.length > contextTokens) throw new Error(`the prompt has ${promptIds.length} tokens, the context holds ${contextTokens}`);
  for (const id of promptIds)
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) throw new Error(`token id ${id} is outside the vocabulary of ${config.vocabSize}`);
}
