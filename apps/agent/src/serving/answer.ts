import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { status } from '@grpc/grpc-js';
import { FinishReason, Refusal_Code, type GenerateRequest, type GenerateResponse, type Logprobs } from '@matfleet/protocol';
import { openSpan, traced, type OpenSpan } from '@matfleet/tracing';
import { EngineError, type EngineEvent, type EngineFinished, type EngineRequest, type RunningEngine } from '../engine/engine-host.js';
import type { Supervisor } from '../engine/supervisor.js';
import type { LatencyRecorder, LatencySample } from '../latency/latency-recorder.js';
import { expectedTtftMs, retryAfterMs, type Pace } from './admission.js';
import { toClaim, toEngineRequest } from './request.js';
import { checkHeld, RunningAnswers } from './running-answers.js';
import { refused, ServingError } from './serving-error.js';
import { TurnQueue } from './turn-queue.js';

export interface AnswererOptions {
  readonly supervisor: Supervisor;
  readonly latency: LatencyRecorder;
  readonly device: () => { readonly deviceId: string; readonly deviceName: string };
  /** Requests that may wait behind the running one. */
  readonly queueLimit: number;
  /** How long a request waits for an engine that is restarting. */
  readonly engineWaitMs: number;
  /** The slice that answers instead of the engine's own, where the box is under pressure. */
  readonly effectiveSlice?: () => string | undefined;
  /** Bound on a request without a deadline of its own. */
  readonly maxAnswerMs: number;
}

/** The slice that a caller counts on; an empty string accepts any. */
export interface Expected {
  readonly modelVersionId: string;
  readonly sliceId: string;
}

export interface Terms {
  readonly expected?: Expected;
  /** Until the caller's deadline. */
  readonly remainingMs?: number;
  /** W3C traceparent of the caller. */
  readonly traceParent?: string | undefined;
}

export type Emit = (event: GenerateResponse) => void | Promise<void>;

/** Gives answers: emits `started`, deltas and `finished`, or rejects with ServingError. */
export interface Answering {
  answer(request: GenerateRequest, emit: Emit, signal: AbortSignal, terms?: Terms): Promise<void>;
}

const REASONS: Record<EngineFinished['reason'], FinishReason> = {
  stop: FinishReason.FINISH_REASON_STOP,
  'max-tokens': FinishReason.FINISH_REASON_MAX_TOKENS,
  'context-full': FinishReason.FINISH_REASON_CONTEXT_FULL,
  cancelled: FinishReason.FINISH_REASON_CANCELLED,
};

/** Answers requests one after the other with the current engine, wherever they came from. */
export class Answerer implements Answering {
  readonly #queue: TurnQueue;
  readonly runningAnswers = new RunningAnswers();
  /** Moving averages. */
  #pace: Pace = {};
  #closed = false;

  constructor(private readonly options: AnswererOptions) {
    this.#queue = new TurnQueue(options.queueLimit);
  }

  get waiting(): number {
    return this.#queue.waiting;
  }

  get running(): number {
    return this.#queue.held;
  }

  /** From now on refuses; what runs or waits goes on. */
  close(): void {
    this.#closed = true;
  }

  /**
   * Emits `started`, deltas and `finished`. Rejects with ServingError. When `signal` aborts it rejects at once with CANCELLED; the turn is kept until the
   * engine has really stopped.
   */
  answer(request: GenerateRequest, emit: Emit, signal: AbortSignal, terms: Terms = {}): Promise<void> {
    return traced('answer', { kind: 'server', entry: true, parent: terms.traceParent }, (span) => this.#answer(request, emit, signal, terms, span));
  }

  async #answer(request: GenerateRequest, emit: Emit, signal: AbortSignal, { expected, remainingMs }: Terms, span: OpenSpan): Promise<void> {
    const arrivedAt = performance.now();
    const engineRequest = toEngineRequest(request);
    const claim = toClaim(request);
    if (this.#closed) throw new ServingError(status.UNAVAILABLE, 'the agent is stopping');
    if (!this.options.supervisor.stats().spec) throw noSlice();
    using bound = within(this.options.maxAnswerMs, signal);
    const deadline = bound.signal;
    const load = { running: this.#queue.held, waiting: this.#queue.waiting };
    const ttftMs = expectedTtftMs(load, this.#pace);
    if (remainingMs !== undefined && ttftMs > remainingMs)
      throw refused(
        status.DEADLINE_EXCEEDED,
        Refusal_Code.CODE_DEADLINE,
        `the first token is expected in ${Math.ceil(ttftMs)} ms, after the deadline in ${Math.floor(remainingMs)} ms; ${load.running} answers run and ${load.waiting} wait`,
        retryAfterMs(load, this.#pace),
      );
    const entry = this.#queue.enter(deadline, claim);
    if (entry === 'full')
      throw refused(
        status.RESOURCE_EXHAUSTED,
        Refusal_Code.CODE_QUEUE_FULL,
        `${load.waiting} requests wait and the queue holds ${this.options.queueLimit}`,
        retryAfterMs(load, this.#pace),
      );
    // A prompt that does not fit is told while it waits, not after.
    if (load.running > 0)
      this.options.supervisor
        .current()
        ?.checkPrompt(engineRequest)
        .catch((error: unknown) => isPromptTooLong(error) && bound.abort(error));
    const done = entry.then(async (release) => {
      try {
        await this.#run(request, engineRequest, emit, deadline, arrivedAt, expected, span);
      } finally {
        release();
      }
    });
    await untilAborted(done, deadline).catch((error: unknown) => {
      throw toServingError(isPromptTooLong(deadline.reason) ? deadline.reason : error, deadline, signal, this.options.maxAnswerMs);
    });
  }

  async #run(
    request: GenerateRequest,
    engineRequest: EngineRequest,
    emit: Emit,
    signal: AbortSignal,
    arrivedAt: number,
    expected: Expected | undefined,
    span: OpenSpan,
  ): Promise<void> {
    const engine = await this.#engine(signal);
    const { spec } = engine;
    if (expected?.modelVersionId && expected.modelVersionId !== spec.modelVersionId)
      throw new ServingError(status.FAILED_PRECONDITION, `model version ${spec.modelVersionId} is active, not ${expected.modelVersionId}`);
    const ownSliceId = this.options.effectiveSlice?.() ?? spec.sliceId;
    if (expected?.sliceId && expected.sliceId !== ownSliceId)
      throw new ServingError(status.FAILED_PRECONDITION, `slice ${ownSliceId} answers now, not ${expected.sliceId}`);
    const sliceId = engineRequest.sliceId ?? ownSliceId;
    checkHeld(engine, sliceId);
    const requestId = request.requestId || randomUUID();
    let computedBy = sliceId;
    const startedAt = performance.now();
    const sample = {
      modelVersionId: spec.modelVersionId,
      sliceId,
      queueMs: startedAt - arrivedAt,
      ttftMs: undefined as number | undefined,
      interTokenMs: [] as number[],
      promptTokens: 0,
      outputTokens: 0,
      failed: false as boolean,
    } satisfies LatencySample;
    let running: Disposable | undefined;
    const generating = openSpan('generate');
    try {
      const finished = await engine.generate(
        { ...engineRequest, sliceId },
        (event) => {
          if (signal.aborted) return undefined;
          if (event.kind === 'started') {
            sample.promptTokens = event.promptTokens;
            const { deviceId, deviceName } = this.options.device();
            const started = {
              requestId,
              deviceId,
              deviceName,
              modelVersionId: spec.modelVersionId,
              modelName: spec.modelName,
              sliceId,
              promptTokens: event.promptTokens,
              queueMs: sample.queueMs,
              ...(spec.precision && { precision: spec.precision }),
            };
            return emit({ event: { $case: 'started', value: started } });
          }
          sample.outputTokens += 1;
          if (sample.ttftMs === undefined) sample.ttftMs = performance.now() - arrivedAt;
          else sample.interTokenMs.push(event.stepMs);
          const changed = event.sliceId !== computedBy;
          computedBy = event.sliceId;
          const value = { text: event.text, tokenIds: [event.tokenId], ...(changed && { sliceId: computedBy }), ...logprobsOf(event) };
          return emit({ event: { $case: 'delta', value } });
        },
        signal,
        (change) => (running = this.runningAnswers.add(requestId, { engine, named: engineRequest.sliceId !== undefined, change })),
      );
      if (signal.aborted) return;
      const { reason, outputTokens, tokensPerSecond, cachedPromptTokens, tail } = finished;
      if (tail !== '') await emit({ event: { $case: 'delta', value: { text: tail, tokenIds: [] } } });
      await emit({
        event: {
          $case: 'finished',
          value: { reason: REASONS[reason], outputTokens, ttftMs: sample.ttftMs ?? 0, tokensPerSecond, cachedPromptTokens },
        },
      });
      this.#pace = {
        answerMs: average(this.#pace.answerMs, performance.now() - startedAt),
        ttftMs: average(this.#pace.ttftMs, (sample.ttftMs ?? performance.now() - arrivedAt) - sample.queueMs),
      };
    } catch (error) {
      // A request that does not fit says nothing about the device.
      sample.failed = !(error instanceof EngineError && (error.code === 'prompt-too-long' || error.code === 'invalid')) && !signal.aborted;
      throw error;
    } finally {
      running?.[Symbol.dispose]();
      generating.end(sample.failed ? 'failed' : undefined);
      span.set({
        'matfleet.model_version': spec.modelVersionId,
        'matfleet.slice': sliceId,
        'matfleet.queue_ms': sample.queueMs,
        'matfleet.ttft_ms': sample.ttftMs,
        'matfleet.prompt_tokens': sample.promptTokens,
        'matfleet.output_tokens': sample.outputTokens,
      });
      // An answer of several slices tells the speed of none.
      const ofOneSlice = computedBy === sliceId;
      if ((sample.outputTokens > 0 && ofOneSlice) || sample.failed) this.options.latency.record(sample);
    }
  }

  /** The current engine; waits a little for one that is restarting. */
  async #engine(signal: AbortSignal): Promise<RunningEngine> {
    const { supervisor, engineWaitMs } = this.options;
    const current = supervisor.current();
    if (current) return current;
    const before = supervisor.stats();
    if (!before.spec) throw noSlice();
    if (!before.crashLooping) {
      using wait = within(engineWaitMs, signal);
      const engine = await supervisor.ready(wait.signal);
      if (engine) return engine;
    }
    const { spec, restartInMs } = supervisor.stats();
    if (!spec) throw noSlice();
    throw refused(
      status.UNAVAILABLE,
      Refusal_Code.CODE_ENGINE_RESTARTING,
      `the engine of slice ${spec.sliceId} is restarting`,
      Math.max(restartInMs, 500),
    );
  }
}

const average = (before: number | undefined, latest: number): number => (before === undefined ? latest : before + 0.2 * (latest - before));

const isPromptTooLong = (error: unknown): error is EngineError => error instanceof EngineError && error.code === 'prompt-too-long';

function logprobsOf({ logprob }: Extract<EngineEvent, { kind: 'token' }>): { logprobs?: Logprobs } {
  if (!logprob) return {};
  const { top, ...chosen } = logprob;
  const wire = ({ tokenId, bytes, logprob }: typeof chosen) => ({ tokenId, bytes: Uint8Array.from(bytes), logprob, top: [] });
  return { logprobs: { tokens: [{ ...wire(chosen), top: top.map(wire) }] } };
}

const noSlice = (): ServingError => refused(status.FAILED_PRECONDITION, Refusal_Code.CODE_NO_SLICE, 'no slice is active on this device yet', 1_000);

/** A signal that aborts with `signal` or after `timeoutMs`, and lets go of both when disposed. */
function within(timeoutMs: number, signal: AbortSignal): { readonly signal: AbortSignal; abort(reason: unknown): void } & Disposable {
  const controller = new AbortController();
  const abort = (): void => controller.abort(signal.reason);
  const timer = setTimeout(() => controller.abort(new Error(`${timeoutMs} ms have passed`)), timeoutMs);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    },
  };
}

/** Settles with `work`, or rejects when the signal aborts first; `work` goes on by itself then. */
function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function toServingError(error: unknown, deadline: AbortSignal, signal: AbortSignal, maxAnswerMs: number): ServingError {
  if (signal.aborted) return new ServingError(status.CANCELLED, 'the caller cancelled the request or its deadline passed');
  if (deadline.aborted && !isPromptTooLong(error))
    return new ServingError(status.DEADLINE_EXCEEDED, `the answer took more than the ${maxAnswerMs} ms that this agent allows`);
  if (error instanceof ServingError) return error;
  if (!(error instanceof EngineError)) return new ServingError(status.INTERNAL, 'the answer could not be delivered', undefined, { cause: error });
  switch (error.code) {
    case 'prompt-too-long':
      return refused(status.INVALID_ARGUMENT, Refusal_Code.CODE_PROMPT_TOO_LONG, error.message);
    case 'invalid':
      return new ServingError(status.INVALID_ARGUMENT, error.message, undefined, { cause: error });
    case 'unavailable':
    case 'start-failed':
      return refused(status.UNAVAILABLE, Refusal_Code.CODE_ENGINE_RESTARTING, `the answer broke off: ${error.message}`, error.retryAfterMs ?? 500);
    case 'timeout':
      return new ServingError(status.DEADLINE_EXCEEDED, error.message);
    case 'internal':
      return new ServingError(status.INTERNAL, `the engine failed: ${error.message}`, undefined, { cause: error });
  }
}
