import { NOTHING_BEGUN, type BegunAnswer } from '../domain/begun-answer.js';
import type { SilenceTerms } from '../domain/routing.js';
import type { DeviceLink, InferenceStart } from '../fleet/device-links.js';
import type { AttemptEvent, AttemptHub } from './attempt-hub.js';
import { Overtaken } from './race.js';

export type AttemptOutcome =
  | { readonly kind: 'answered'; readonly text: string; readonly outputTokens: number; readonly ttftMs: number }
  /** `retryable`: the device said "not now". `begun`: what it wrote, after what was begun before. */
  | { readonly kind: 'failed'; readonly error: string; readonly retryable: boolean; readonly begun: BegunAnswer };

export interface AttemptRun {
  /** The way to the session that the router counted on; undefined when there is none any more. */
  readonly link: DeviceLink | undefined;
  readonly device: { readonly deviceId: string; readonly name: string; readonly epoch: bigint };
  readonly start: Omit<InferenceStart, 'answeredIds'>;
  /** The answer goes on after this. */
  readonly begun: BegunAnswer;
  /** Token ids of the device's model are below this. */
  readonly vocabSize: number;
  readonly silence: SilenceTerms;
  readonly signal: AbortSignal;
  /** Why the slice that answers will not do; null when it will. */
  readonly refuseSlice: (modelVersionId: string, sliceId: string) => string | null;
  /** All the text so far, and what another device could go on from; both with what was begun before. */
  readonly onProgress: (text: string, begun: BegunAnswer) => void;
  /** What the device says and was not refused. */
  readonly onEvent: (event: AttemptEvent) => void;
}

/** google.rpc codes by which a device says "not now". */
const RETRYABLE = new Set([8, 9, 14]);
const INVALID_ARGUMENT = 3;
const ANSWER_MAX = 1_000_000;

/** Runs one attempt on one device, to its answer, its failure, or a silence that lasts too long. Never throws; cancels what it gives up. */
export function runAttempt(run: AttemptRun, hub: AttemptHub): Promise<AttemptOutcome> {
  return new Promise((resolve) => {
    const { device, start, silence } = run;
    let { text } = run.begun;
    const tokenIds = [...run.begun.tokenIds];
    // As far as its tokens make it certain: the device that goes on tells the rest.
    let begun = run.begun;
    let silent: NodeJS.Timeout;
    const end = (outcome: AttemptOutcome, cancel: boolean): void => {
      clearTimeout(silent);
      clearTimeout(late);
      run.signal.removeEventListener('abort', aborted);
      stopListening();
      if (cancel) run.link?.send({ kind: 'cancel-inference', attemptId: start.attemptId });
      resolve(outcome);
    };
    const fail = (error: string, retryable: boolean, cancel: boolean): void => end({ kind: 'failed', error, retryable, begun }, cancel);
    const giveUp = (error: string, retryable = false): void => fail(error, retryable, true);
    const waitFor = (ms: number, what: string): void => {
      clearTimeout(silent);
      silent = setTimeout(() => giveUp(`${device.name} was silent for ${Math.round(ms)} ms before its ${what}`), ms);
    };
    const aborted = (): void =>
      giveUp(run.signal.reason instanceof Overtaken ? run.signal.reason.message : 'the control plane stopped this attempt', true);

    const hear = (event: AttemptEvent): void => {
      switch (event.kind) {
        case 'started': {
          const refused = run.refuseSlice(event.modelVersionId, event.sliceId);
          if (refused !== null) return giveUp(refused, true);
          run.onEvent(event);
          return run.onProgress(text, begun);
        }
        case 'delta': {
          waitFor(silence.nextTokenMs, 'next token');
          const unknown = event.tokenIds.find((id) => id >= run.vocabSize);
          if (unknown !== undefined) return giveUp(`${device.name} told token ${unknown}; its model has ${run.vocabSize}`);
          text += event.text;
          if (text.length > ANSWER_MAX) return giveUp(`the answer of ${device.name} is longer than ${ANSWER_MAX} characters`);
          tokenIds.push(...event.tokenIds);
          if (event.tokenIds.length > 0) begun = { ...begun, text, tokenIds };
          run.onEvent(event);
          return run.onProgress(text, begun);
        }
        case 'finished':
          if (event.reason === 'cancelled') return fail(`${device.name} cancelled its answer`, true, false);
          if (tokenIds.length > 0 && tokenIds.length !== event.outputTokens)
            return fail(`${device.name} finished ${event.outputTokens} tokens, but ${tokenIds.length} came`, false, false);
          run.onEvent(event);
          return end({ kind: 'answered', text, outputTokens: event.outputTokens, ttftMs: event.ttftMs }, false);
        case 'failed': {
          // What a device wrote and another one does not take must not end the answer: it begins anew.
          const refusesBegun = event.code === INVALID_ARGUMENT && run.begun.tokenIds.length > 0;
          if (refusesBegun) begun = NOTHING_BEGUN;
          return fail(`${device.name}: ${event.message} (code ${event.code})`, refusesBegun || RETRYABLE.has(event.code), false);
        }
        case 'lost':
          return fail(`the session of ${device.name} ended: ${event.reason}`, false, false);
      }
    };

    const stopListening = hub.listen(start.attemptId, device, hear);
    const late = setTimeout(
      () => giveUp(`${device.name} had not answered after ${Math.round(start.remainingMs)} ms, the deadline of the inference`),
      start.remainingMs,
    );
    silent = setTimeout(
      () => giveUp(`${device.name} was silent for ${Math.round(silence.firstTokenMs)} ms before its first token`),
      silence.firstTokenMs,
    );
    run.signal.addEventListener('abort', aborted, { once: true });
    if (run.signal.aborted) aborted();
    else if (run.link?.epoch !== device.epoch || !run.link.send({ kind: 'start-inference', start: { ...start, answeredIds: run.begun.tokenIds } }))
      fail(`${device.name} was not connected any more`, false, false);
  });
}
