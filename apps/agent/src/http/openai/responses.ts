import { FinishReason, type Finished, type TokenLogprob } from '@matfleet/protocol';
import type { Call, CallPart } from '../tools.js';
import type { HttpError } from '../http-error.js';

// The shapes of OpenAI's API, as far as the agent fills them.

export const finishReason = (reason: FinishReason, called = false): 'stop' | 'length' | 'tool_calls' =>
  reason === FinishReason.FINISH_REASON_STOP ? (called ? 'tool_calls' : 'stop') : 'length';

export const usage = (promptTokens: number, { outputTokens, cachedPromptTokens }: Finished) => ({
  prompt_tokens: promptTokens,
  completion_tokens: outputTokens,
  total_tokens: promptTokens + outputTokens,
  prompt_tokens_details: { cached_tokens: cachedPromptTokens },
});

const tokenText = ({ bytes }: TokenLogprob): string => Buffer.from(bytes).toString('utf8');

const entry = (token: TokenLogprob) => ({ token: tokenText(token), logprob: token.logprob, bytes: [...token.bytes] });

export const chatLogprobs = (tokens: readonly TokenLogprob[]) => ({
  content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  refusal: null,
});

/** `offset`: characters of the answer before these tokens. */
export function completionLogprobs(tokens: readonly TokenLogprob[], offset: number) {
  let at = offset;
  return {
    tokens: tokens.map(tokenText),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) => Object.fromEntries(top.map((one) => [tokenText(one), one.logprob]))),
    text_offset: tokens.map((token) => {
      const here = at;
      at += tokenText(token).length;
      return here;
    }),
  };
}

const callId = (answerId: string): string => answerId.replace(/^chatcmpl-/, 'call_');

/** A choice of a chunk; undefined where nothing is certain yet. */
export function callChunk(part: CallPart, answerId: string, tokens: readonly TokenLogprob[] | undefined): object | undefined {
  const logprobs = tokens ? chatLogprobs(tokens) : null;
  if (part.content !== undefined) return { delta: { content: part.content }, logprobs };
  if (part.name !== undefined)
    return {
      delta: { tool_calls: [{ index: 0, id: callId(answerId), type: 'function', function: { name: part.name, arguments: part.arguments ?? '' } }] },
      logprobs,
    };
  if (part.arguments !== undefined) return { delta: { tool_calls: [{ index: 0, function: { arguments: part.arguments } }] }, logprobs };
  return tokens && { delta: {}, logprobs };
}

export const callMessage = ({ name, text }: Call, answerId: string) => ({
  role: 'assistant',
  content: null,
  refusal: null,
  tool_calls: [{ id: callId(answerId), type: 'function', function: { name, arguments: text } }],
});

const ERROR_TYPES: Readonly<Record<number, string>> = { 401: 'authentication_error', 403: 'permission_error', 429: 'rate_limit_error' };

export const errorBody = ({ status, code, message, details }: HttpError) => ({
  error: {
    message,
    type: ERROR_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error'),
    param: details.param ?? null,
    code,
  },
});

export const modelObject = (id: string, createdAt: number) => ({ id, object: 'model', created: createdAt, owned_by: 'matfleet' });
