import type { Manifest } from '@matfleet/model';
import type { Decoder } from './decoder.js';
import type { GenerateOptions, GenerateResult, TokenEvent } from './engine-api.js';
import type { KvCache } from './kv-cache.js';
import { createSampler } from './sampler.js';

export interface TextStream {
  push(tokenId: number): string;
  end(): string;
}

/** Decodes after `promptIds` until a stop token, the token limit, a full context or an abort. `now` is in milliseconds. */
export async function* generate(
  decoder: Decoder,
  cache: KvCache,
  promptIds: readonly number[],
  options: GenerateOptions,
  chunkTokens: number,
  textStream: () => TextStream,
  now: () => number = () => performance.now(),
): AsyncGenerator<TokenEvent, GenerateResult> {
  const { config } = decoder;
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

  let logits: Float32Array | undefined;
  for (let at = 0; at < promptIds.length; at += chunkTokens) {
    if (options.signal?.aborted) return result('cancelled');
    const chunk = promptIds.slice(at, at + chunkTokens);
    logits = (await decoder.forward(chunk, cache))[0];
    await breathe();
  }
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
    yield { tokenId, text: piece };
    if (outputTokens >= maxTokens) return result('max-tokens');
    if (cache.length >= cache.contextTokens) return result('context-full');
    if (options.signal?.aborted) return result('cancelled');
    logits = (await decoder.forward([tokenId], cache))[0];
    await breathe();
  }
}

/** Passes block their thread; between two, timers, sockets and an abort get their turn. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function checkPrompt(promptIds: readonly number[], config: Manifest['config'], contextTokens: number): void {
  if (promptIds.length === 0) throw new Error('the prompt is empty');
  if (promptIds.length > contextTokens) throw new Error(`the prompt has ${promptIds.length} tokens, the context holds ${contextTokens}`);
  for (const id of promptIds)
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) throw new Error(`token id ${id} is outside the vocabulary of ${config.vocabSize}`);
}
