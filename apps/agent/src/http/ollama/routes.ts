import { performance } from 'node:perf_hooks';
import type { Delta, Finished, Started, TokenLogprob } from '@matfleet/protocol';
import { AGENT_VERSION } from '../../version.js';
import { provenance, provenanceHeaders } from '../../serving/provenance.js';
import { activeModel, assertIsActive, type ActiveModel } from '../active-model.js';
import { answerInto, type AnswerSink } from '../answering.js';
import { remainingMs } from '../caller-deadline.js';
import { wishesOf } from '../caller-wishes.js';
import type { Exchange } from '../exchange.js';
import { badRequest, HttpError, toHttpError } from '../http-error.js';
import { parse } from '../parse.js';
import type { Route, Serving } from '../routes.js';
import { calledBy, CallReader, type ToolPrompt } from '../tools.js';
import { toOllamaChat, toOllamaGenerate, type OllamaRequest } from './requests.js';
import { callField, doneFields, errorBody, listed, logprobFields, shown } from './responses.js';
import { z } from 'zod';

/** The field that holds an answer's text. */
type Field = (text: string) => object;
const chatField: Field = (content) => ({ message: { role: 'assistant', content } });
const generateField: Field = (response) => ({ response });

const ShowRequest = z.looseObject({ model: z.string().optional(), name: z.string().optional() });

export function ollamaRoutes(serving: Serving): readonly Route[] {
  const since = new Date();
  const active = (): ActiveModel | undefined => activeModel(serving.supervisor);
  const list = (more: (model: ActiveModel) => object) => {
    const model = active();
    return { models: model ? [{ ...listed(model.spec, since), ...more(model) }] : [] };
  };
  return [
    { method: 'GET', path: /^\/api\/version$/, run: (exchange) => exchange.send(200, { version: AGENT_VERSION }), errorBody },
    {
      method: 'GET',
      path: /^\/api\/tags$/,
      run: (exchange) =>
        exchange.send(
          200,
          list(() => ({})),
        ),
      errorBody,
    },
    {
      method: 'GET',
      path: /^\/api\/ps$/,
      run: (exchange) =>
        exchange.send(
          200,
          list(({ contextTokens }) => ({ context_length: contextTokens, size_vram: 0 })),
        ),
      errorBody,
    },
    {
      method: 'POST',
      path: /^\/api\/show$/,
      async run(exchange) {
        const { model, name } = parse(ShowRequest, await exchange.json());
        const known = active();
        if (!known) throw new HttpError(404, 'model_not_found', 'no slice is active on this device yet');
        assertIsActive(model ?? name ?? '', known);
        exchange.send(200, shown(known.spec, known.contextTokens, since));
      },
      errorBody,
    },
    { method: 'POST', path: /^\/api\/chat$/, run: (exchange) => answer(serving, exchange, chatField, toOllamaChat), errorBody },
    { method: 'POST', path: /^\/api\/generate$/, run: (exchange) => answer(serving, exchange, generateField, toOllamaGenerate), errorBody },
  ];
}

async function answer(
  serving: Serving,
  exchange: Exchange,
  field: Field,
  toRequest: (body: unknown, toolPrompt: ToolPrompt) => OllamaRequest,
): Promise<void> {
  const arrivedAt = performance.now();
  const deadlineMs = remainingMs((name) => exchange.header(name));
  const wishes = wishesOf((name) => exchange.header(name));
  const { model, generate, stream, numCtx, mayCall } = toRequest(await exchange.json(), serving.toolPrompt);
  const active = activeModel(serving.supervisor);
  assertIsActive(model, active);
  if (numCtx !== undefined && active && numCtx > active.contextTokens)
    throw badRequest(`options.num_ctx is ${numCtx}; slice ${active.spec.sliceId} has a context of ${active.contextTokens} tokens`, 'options.num_ctx');
  const head = () => ({ model, created_at: new Date().toISOString() });
  if (!generate) return exchange.send(200, { ...head(), ...field(''), done: true, done_reason: 'load' });
  const sink = (stream ? streamed : whole)(exchange, field, head, arrivedAt, mayCall);
  try {
    await answerInto(serving.answering, { ...generate, ...wishes }, sink, exchange.gone, deadlineMs, exchange.header('traceparent'));
  } catch (error) {
    if (!exchange.started) throw error;
    await exchange.write(line(errorBody(toHttpError(error))));
    exchange.end();
  }
}

const line = (data: object): string => `${JSON.stringify(data)}\n`;

function streamed(exchange: Exchange, field: Field, head: () => object, arrivedAt: number, mayCall: boolean): AnswerSink {
  let started: Started;
  // A call is told as a whole, once its arguments are.
  let call = '';
  const reader = mayCall ? new CallReader() : undefined;
  return {
    started(value) {
      started = value;
      exchange.startStream('application/x-ndjson', provenanceHeaders(provenance(value)));
    },
    delta({ text, logprobs }) {
      const certain = reader ? (reader.push(text).content ?? '') : text;
      if (reader) call += text;
      if (certain === '' && !logprobs) return undefined;
      return exchange.write(line({ ...head(), ...field(certain), done: false, ...logprobFields(logprobs?.tokens) }));
    },
    async finished(finished) {
      const done = doneFields(started, finished, performance.now() - arrivedAt);
      if (reader?.called) await exchange.write(line({ ...head(), ...callField(calledBy(call)!), done: false }));
      await exchange.write(line({ ...head(), ...field(''), ...done, matfleet: provenance(started, finished) }));
      exchange.end();
    },
  };
}

function whole(exchange: Exchange, field: Field, head: () => object, arrivedAt: number, mayCall: boolean): AnswerSink {
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
      const done = doneFields(started, finished, performance.now() - arrivedAt);
      const call = mayCall ? calledBy(text) : undefined;
      exchange.send(
        200,
        { ...head(), ...(call ? callField(call) : field(text)), ...done, ...logprobFields(tokens), matfleet: told },
        provenanceHeaders(told),
      );
    },
  };
}
