import { FinishReason, type Finished, type Started, type TokenLogprob } from '@matfleet/protocol';
import type { EngineSpec } from '../../engine/engine-host.js';
import { taggedName } from '../active-model.js';
import type { Call } from '../tools.js';
import type { HttpError } from '../http-error.js';

// The shapes of Ollama's API, as far as the agent fills them.

const nanoseconds = (ms: number): number => Math.round(ms * 1e6);

/** The last line of an answer. Loading took no time: the slice was there. */
export function doneFields({ promptTokens, queueMs }: Started, { reason, outputTokens, ttftMs, tokensPerSecond }: Finished, totalMs: number) {
  return {
    done: true,
    done_reason: reason === FinishReason.FINISH_REASON_STOP ? 'stop' : 'length',
    total_duration: nanoseconds(totalMs),
    load_duration: 0,
    prompt_eval_count: promptTokens,
    prompt_eval_duration: nanoseconds(Math.max(0, ttftMs - queueMs)),
    eval_count: outputTokens,
    eval_duration: nanoseconds(tokensPerSecond > 0 ? ((outputTokens - 1) * 1_000) / tokensPerSecond : 0),
  };
}

const logprob = ({ bytes, logprob }: TokenLogprob) => ({ token: Buffer.from(bytes).toString('utf8'), logprob, bytes: [...bytes] });

export const logprobFields = (tokens: readonly TokenLogprob[] | undefined) =>
  tokens ? { logprobs: tokens.map((token) => ({ ...logprob(token), top_logprobs: token.top.map(logprob) })) } : {};

/** Arguments that were cut are no JSON: they stand as text then. */
export function callField({ name, text }: Call) {
  let given: unknown = text;
  try {
    given = JSON.parse(text);
  } catch {
    // Told by done_reason.
  }
  return { message: { role: 'assistant', content: '', tool_calls: [{ function: { name, arguments: given } }] } };
}

export const errorBody = ({ message, code }: HttpError) => ({ error: message, code });

const details = ({ precision = '' }: EngineSpec) => ({
  parent_model: '',
  format: 'matfleet-package-1',
  family: 'gemma3n',
  families: ['gemma3n'],
  parameter_size: '',
  quantization_level: precision,
});

export const listed = (spec: EngineSpec, since: Date) => ({
  name: taggedName(spec),
  model: taggedName(spec),
  modified_at: since.toISOString(),
  size: spec.packageBytes ?? 0,
  digest: spec.modelVersionId,
  details: details(spec),
});

export const shown = (spec: EngineSpec, contextTokens: number, since: Date) => ({
  modelfile: '',
  parameters: '',
  template: '',
  modified_at: since.toISOString(),
  details: details(spec),
  model_info: {
    'general.architecture': 'gemma3n',
    'gemma3n.context_length': contextTokens,
    'matfleet.model_version': spec.modelVersionId,
    'matfleet.slice': spec.sliceId,
  },
  capabilities: ['completion', 'tools'],
});
