import { randomUUID } from 'node:crypto';
import type { Delta, Finished, GenerateRequest, Started, TokenLogprob } from '@matfleet/protocol';
import { provenance, provenanceHeaders } from '../../serving/provenance.js';
import { activeModel, assertIsActive } from '../active-model.js';
import { answerInto, type AnswerSink } from '../answering.js';
import { remainingMs } from '../caller-deadline.js';
import { wishesOf } from '../caller-wishes.js';
import type { Exchange } from '../exchange.js';
import { HttpError, toHttpError } from '../http-error.js';
import type { Route, Serving } from '../routes.js';
import { calledBy, CallReader, type ToolPrompt } from '../tools.js';
import { toChatRequest, toCompletionRequest, type OpenAiRequest } from './requests.js';
import { callChunk, callMessage, chatLogprobs, completionLogprobs, errorBody, finishReason, modelObject, usage } from './responses.js';

/** How chat and completion differ once an answer runs. */
interface Form {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** Sent first on a stream. */
  readonly opening?: object;
  /** The part of a choice that holds text; `offset` is the characters before it. */
  chunk(text: string, tokens: readonly TokenLogprob[] | undefined, offset: number): object;
  whole(text: string, tokens: readonly TokenLogprob[] | undefined): object;
  /** Of the last chunk. */
  readonly closing: object;
}

const chat: Form = {
  idPrefix: 'chatcmpl-',
  object: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  opening: { delta: { role: 'assistant', content: '', refusal: null }, logprobs: null },
  chunk: (content, tokens) => ({ delta: { content }, logprobs: tokens ? chatLogprobs(tokens) : null }),
  whole: (content, tokens) => ({ message: { role: 'assistant', content, refusal: null }, logprobs: tokens ? chatLogprobs(tokens) : null }),
  closing: { delta: {}, logprobs: null },
};

const completion: Form = {
  idPrefix: 'cmpl-',
  object: 'text_completion',
  chunkObject: 'text_completion',
  chunk: (text, tokens, offset) => ({ text, logprobs: tokens ? completionLogprobs(tokens, offset) : null }),
  whole: (text, tokens) => ({ text, logprobs: tokens ? completionLogprobs(tokens, 0) : null }),
  closing: { text: '', logprobs: null },
};

export function openAiRoutes(serving: Serving): readonly Route[] {
  const openedAt = Math.floor(Date.now() / 1_000);
  const models = () => {
    const active = activeModel(serving.supervisor);
    return active ? [{ ...modelObject(active.spec.modelName, openedAt), ...modelDetails(active.spec, active.contextTokens) }] : [];
  };
  return [
    { method: 'GET', path: /^\/v1\/models$/, run: (exchange) => exchange.send(200, { object: 'list', data: models() }), errorBody },
    {
      method: 'GET',
      path: /^\/v1\/models\/(.+)$/,
      run(exchange, [name]) {
        if (models().length === 0) throw new HttpError(404, 'model_not_found', 'no slice is active on this device yet');
        assertIsActive(decoded(name!), activeModel(serving.supervisor));
        exchange.send(200, models()[0]);
      },
      errorBody,
    },
    { method: 'POST', path: /^\/v1\/chat\/completions$/, run: (exchange) => answer(serving, exchange, chat, toChatRequest), errorBody },
    { method: 'POST', path: /^\/v1\/completions$/, run: (exchange) => answer(serving, exchange, completion, toCompletionRequest), errorBody },
  ];
}

/** A name that is no valid escape stands for itself, and is unknown. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

const modelDetails = (
  { modelVersionId, sliceId, precision = '' }: { modelVersionId: string; sliceId: string; precision?: string },
  contextTokens: number,
) => ({
  matfleet: { model_version: modelVersionId, slice: sliceId, precision, context_tokens: contextTokens },
});

async function answer(
  serving: Serving,
  exchange: Exchange,
  form: Form,
  toRequest: (body: unknown, toolPrompt: ToolPrompt) => OpenAiRequest,
): Promise<void> {
  const deadlineMs = remainingMs((name) => exchange.header(name));
  const wishes = wishesOf((name) => exchange.header(name));
  const request = toRequest(await exchange.json(), serving.toolPrompt);
  assertIsActive(request.model, activeModel(serving.supervisor));
  const head = { id: `${form.idPrefix}${randomUUID()}`, created: Math.floor(Date.now() / 1_000), model: request.model };
  const sink = request.stream ? streamed(exchange, form, head, request) : whole(exchange, form, head, request);
  const generate: GenerateRequest = { ...request.generate, requestId: head.id, ...wishes };
  try {
    await answerInto(serving.answering, generate, sink, exchange.gone, deadlineMs, exchange.header('traceparent'));
  } catch (error) {
    if (!exchange.started) throw error;
    await exchange.write(event(errorBody(toHttpError(error))));
    exchange.end();
  }
}

interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

const event = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;

function streamed(exchange: Exchange, form: Form, head: Head, { includeUsage, mayCall }: OpenAiRequest): AnswerSink {
  const chunk = (choice: object, finish: string | null, more: object = {}): string =>
    event({
      ...{ ...head, object: form.chunkObject, choices: [{ index: 0, ...choice, finish_reason: finish }] },
      ...(includeUsage && { usage: null }),
      ...more,
    });
  let started: Started;
  let offset = 0;
  const reader = mayCall ? new CallReader() : undefined;
  return {
    started(value) {
      started = value;
      exchange.startStream('text/event-stream; charset=utf-8', provenanceHeaders(provenance(value)));
      return form.opening && exchange.write(chunk(form.opening, null));
    },
    delta({ text, logprobs }) {
      // Nothing to tell: a character is incomplete.
      if (text === '' && !logprobs) return undefined;
      const choice = reader ? callChunk(reader.push(text), head.id, logprobs?.tokens) : form.chunk(text, logprobs?.tokens, offset);
      if (!choice) return undefined;
      const written = exchange.write(chunk(choice, null));
      offset += text.length;
      return written;
    },
    async finished(finished) {
      await exchange.write(chunk(form.closing, finishReason(finished.reason, reader?.called), { matfleet: provenance(started, finished) }));
      if (includeUsage) await exchange.write(event({ ...head, object: form.chunkObject, choices: [], usage: usage(started.promptTokens, finished) }));
      await exchange.write('data: [DONE]\n\n');
      exchange.end();
    },
  };
}

function whole(exchange: Exchange, form: Form, head: Head, { mayCall }: OpenAiRequest): AnswerSink {
  let started: Started;
  let text = '';
  let tokens: TokenLogprob[] | undefined;
  return {
    started(value) {
      started = value;
    },
    delta(delta: Delta) {
      text += delta.text;
      if (delta.logprobs) (tokens ??= []).push(...delta.logprobs.tokens);
    },
    finished(finished: Finished) {
      const told = provenance(started, finished);
      const call = mayCall ? calledBy(text) : undefined;
      const choice = call ? { message: callMessage(call, head.id), logprobs: tokens ? chatLogprobs(tokens) : null } : form.whole(text, tokens);
      exchange.send(
        200,
        {
          ...head,
          object: form.object,
          choices: [{ index: 0, ...choice, finish_reason: finishReason(finished.reason, call !== undefined) }],
          usage: usage(started.promptTokens, finished),
          matfleet: told,
        },
        provenanceHeaders(told),
      );
    },
  };
}
