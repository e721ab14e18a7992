import { status } from '@grpc/grpc-js';
import type { Delta, Finished, GenerateRequest, Started } from '@matfleet/protocol';
import type { Answering } from '../serving/answer.js';
import { ServingError } from '../serving/serving-error.js';

/** What becomes of an answer's events; a promise holds the engine back. */
export interface AnswerSink {
  started(started: Started): void | Promise<void>;
  delta(delta: Delta): void | Promise<void>;
  finished(finished: Finished): void | Promise<void>;
}

/** Answers within `remainingMs`; rejects with ServingError. */
export async function answerInto(
  answering: Answering,
  request: GenerateRequest,
  sink: AnswerSink,
  gone: AbortSignal,
  remainingMs: number | undefined,
  traceParent?: string,
): Promise<void> {
  const deadline = new AbortController();
  const abort = (): void => deadline.abort();
  const timer = remainingMs === undefined ? undefined : setTimeout(abort, remainingMs);
  if (gone.aborted) abort();
  else gone.addEventListener('abort', abort, { once: true });
  try {
    await answering.answer(
      request,
      ({ event }) => {
        switch (event?.$case) {
          case 'started':
            return sink.started(event.value);
          case 'delta':
            return sink.delta(event.value);
          case 'finished':
            return sink.finished(event.value);
          case undefined:
            return undefined;
        }
      },
      deadline.signal,
      { ...(remainingMs !== undefined && { remainingMs }), traceParent },
    );
  } catch (error) {
    if (deadline.signal.aborted && !gone.aborted)
      throw new ServingError(status.DEADLINE_EXCEEDED, `the deadline passed, ${remainingMs} ms after the request arrived`);
    throw error;
  } finally {
    clearTimeout(timer);
    gone.removeEventListener('abort', abort);
  }
}
