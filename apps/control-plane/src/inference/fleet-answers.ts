import { randomUUID } from 'node:crypto';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { traced } from '@matfleet/tracing';
import { CONFIG, type Config } from '../config.js';
import { goesOnFrom, type BegunAnswer } from '../domain/begun-answer.js';
import { HedgeBudget, patienceMs } from '../domain/hedging.js';
import { route, silenceDeadlines, type Route, type Tried } from '../domain/routing.js';
import { formatQuality } from '../domain/units.js';
import { FleetEvents } from '../events/fleet-events.js';
import type { InferenceStart } from '../fleet/device-links.js';
import { Metrics } from '../telemetry.js';
import { runAttempt, type AttemptOutcome } from './attempt.js';
import { AttemptHub, type AttemptEvent } from './attempt-hub.js';
import { Breakers } from './breakers.js';
import { Overtaken, race, type AttemptHooks } from './race.js';
import { ReachableDevices, type ReachableDevice } from './reachable-devices.js';

const EXPECTED_TOKENS = 64;
const WAIT_MS = 500;
/** A device that has begun is expected to go on: ten times the latency it is meant to have, at least 5 s. */
const nextTokenMs = (targetMs: number): number => Math.max(5_000, 10 * targetMs);
const firstTokenMs = (targetMs: number): number => Math.max(10_000, 2 * targetMs);

/** An answer that is wanted of the fleet. */
export interface Wanted {
  readonly inferenceId: string;
  readonly request: Omit<InferenceStart, 'attemptId' | 'inferenceId' | 'remainingMs' | 'modelVersionId' | 'sliceId' | 'answeredIds'>;
  readonly qualityFloor: number | null;
  readonly deadlineAtMs: number;
  /** The answer goes on after this. */
  readonly begun: BegunAnswer;
  /** Earlier attempts, the last one last. */
  readonly tried: readonly Tried[];
  readonly firstOrdinal: number;
  /** Devices that may see the prompt; all when absent. */
  readonly mayAsk?: (device: ReachableDevice) => boolean;
  /** Wait for a device that can answer, until the deadline. */
  readonly waits: boolean;
}

/** One try on one device. */
export interface FleetAttempt {
  readonly id: string;
  readonly ordinal: number;
  readonly device: ReachableDevice;
  readonly modelVersionId: string;
  readonly sliceId: string;
  /** Why this device. */
  readonly reason: string;
  /** What it goes on from. */
  readonly begun: BegunAnswer;
}

/** Who follows an answer. */
export interface AnswerWatcher {
  begins(attempt: FleetAttempt): Promise<void> | void;
  /** All the text so far. */
  wrote(attempt: FleetAttempt, text: string): void;
  /** What the device says, as it says it. */
  hears?(attempt: FleetAttempt, event: AttemptEvent): void;
  ended(attempt: FleetAttempt, outcome: AttemptOutcome): Promise<void> | void;
}

export type FleetAnswer = { readonly kind: 'answered' } | { readonly kind: 'failed'; readonly error: string };

/** Has devices of the fleet answer: the best one first, another one where it fails, going on in the middle of a sentence. */
@Injectable()
export class FleetAnswers {
  private readonly log = new Logger('inference');
  private readonly hedges = new HedgeBudget();

  constructor(
    private readonly devices: ReachableDevices,
    private readonly attempts: AttemptHub,
    private readonly breakers: Breakers,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Rejects when `signal` aborts. */
  async answer(wanted: Wanted, watcher: AnswerWatcher, signal: AbortSignal): Promise<FleetAnswer> {
    const tried = [...wanted.tried];
    let { begun, firstOrdinal } = wanted;
    let refusal = 'no device was asked';
    const ordinal = (): number => firstOrdinal++;
    this.hedges.answerBegins();
    while (!signal.aborted) {
      const remainingMs = wanted.deadlineAtMs - Date.now();
      if (remainingMs <= 0)
        return { kind: 'failed', error: `deadline-exceeded: not answered by ${new Date(wanted.deadlineAtMs).toISOString()}; ${refusal}` };
      const { decision, othersCould } = await this.decide(wanted, tried, remainingMs);
      if (decision.kind === 'none') {
        refusal = decision.reason;
        const worthIt = decision.waitMayHelp && (wanted.waits || tried.some((one) => one.retryable));
        if (!worthIt) return { kind: 'failed', error: `unavailable: ${decision.reason}` };
        await this.somethingChanges(Math.min(WAIT_MS, remainingMs), signal);
        continue;
      }
      const first = attemptOn(decision, begun, ordinal());
      await watcher.begins(first);
      const ended = await race(
        {
          first,
          run: (attempt, hooks, until) =>
            traced('attempt', { attributes: attributesOf(attempt) }, async (span) => {
              const outcome = await this.run(attempt, wanted, othersCould, hooks, until);
              span.set({ 'matfleet.attempt.outcome': outcome.kind });
              return outcome;
            }),
          patienceMs: ({ device }, spoke) => patienceMs(device, spoke),
          challenger: async (silent, from) => {
            const second = await this.decide(wanted, [...tried, triedOf(silent, false)], wanted.deadlineAtMs - Date.now());
            const { decision } = second;
            if (
              decision.kind === 'none' ||
              goesOnFrom(from, decision.device.vocabulary).tokenIds.length !== from.tokenIds.length ||
              !this.hedges.take()
            )
              return undefined;
            this.metrics.hedges.inc();
            const next = attemptOn(decision, from, ordinal());
            return { ...next, reason: `${silent.device.name} is silent; ${next.reason}` };
          },
          watcher,
        },
        signal,
      );
      for (const { attempt, outcome } of ended) {
        if (outcome.kind === 'answered') return { kind: 'answered' };
        refusal = outcome.error;
        begun = outcome.begun;
        tried.push(triedOf(attempt, outcome.retryable));
      }
    }
    throw new Error('stopped before the inference was answered');
  }

  private async decide({ qualityFloor, request, mayAsk = () => true }: Wanted, tried: readonly Tried[], remainingMs: number) {
    const devices = (await this.devices.list(request.task)).filter(mayAsk);
    const expectedTokens = request.maxTokens || EXPECTED_TOKENS;
    const decision = route(devices, { qualityFloor, remainingMs, expectedTokens, tried, nowMs: Date.now() });
    const chosen = decision.kind === 'device' ? decision.device : undefined;
    return { decision, othersCould: devices.some((other) => other !== chosen && couldAnswer(other, qualityFloor)) };
  }

  private async run(
    attempt: FleetAttempt,
    { inferenceId, request, deadlineAtMs }: Wanted,
    othersCould: boolean,
    hooks: AttemptHooks,
    signal: AbortSignal,
  ): Promise<AttemptOutcome> {
    const { id, device, ordinal, modelVersionId, sliceId, begun } = attempt;
    const remainingMs = Math.max(1, deadlineAtMs - Date.now());
    const { targetTtftMs, targetInterTokenMs } = this.config;
    const terms = { firstTokenMs: firstTokenMs(targetTtftMs), nextTokenMs: nextTokenMs(targetInterTokenMs) };
    const key = { deviceId: device.deviceId, modelVersionId, sliceId };
    let spoke = false;
    this.breakers.tried(key);
    const outcome = await runAttempt(
      {
        device,
        link: device.link,
        begun,
        vocabSize: device.vocabSize,
        start: { ...request, attemptId: id, inferenceId, remainingMs, modelVersionId, sliceId },
        silence: silenceDeadlines(terms, remainingMs, othersCould),
        signal,
        refuseSlice: (version, slice) =>
          version === modelVersionId && slice === sliceId
            ? null
            : `${device.name} answers with ${slice} of ${version.slice(0, 12)} instead of ${sliceId} (${formatQuality(device.active!.quality)}) of ${modelVersionId.slice(0, 12)}`,
        ...hooks,
        onEvent: (event) => {
          spoke ||= event.kind === 'delta';
          hooks.onEvent(event);
        },
      },
      this.attempts,
    );
    this.metrics.attempts.inc({ outcome: outcome.kind, fallback: String(ordinal > 1) });
    if (outcome.kind === 'answered') {
      this.breakers.succeeded(key);
      return outcome;
    }
    // A device that said nothing until another one had spoken has failed; one that only was slower has not.
    const overtaken = signal.reason instanceof Overtaken;
    if (overtaken ? spoke : outcome.retryable) this.breakers.saidNothing(key);
    else this.breakers.failed(key);
    this.log.warn({ inferenceId, attempt: ordinal, device: device.name, reason: outcome.error, msg: 'attempt failed' });
    return overtaken ? { ...outcome, retryable: true } : outcome;
  }

  /** Until a device changes, at most `ms`. */
  private somethingChanges(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        changes.unsubscribe();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      const changes = this.events.on('device-changed').subscribe(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }
}

const couldAnswer = ({ presence, active }: ReachableDevice, floor: number | null): boolean =>
  presence === 'online' && active !== null && (floor === null || (active.quality ?? -1) >= floor);

function attemptOn({ device, reason }: Extract<Route<ReachableDevice>, { kind: 'device' }>, begun: BegunAnswer, ordinal: number): FleetAttempt {
  const { modelVersionId, sliceId } = device.active!;
  const goesOn = goesOnFrom(begun, device.vocabulary);
  const after = goesOn.tokenIds.length > 0 ? `; goes on after ${goesOn.tokenIds.length} tokens` : '';
  return { id: randomUUID(), ordinal, device, modelVersionId, sliceId, reason: reason + after, begun: goesOn };
}

const triedOf = ({ device }: FleetAttempt, retryable: boolean): Tried => ({
  deviceId: device.deviceId,
  epoch: device.epoch,
  quality: device.active?.quality ?? null,
  endedAtMs: Date.now(),
  retryable,
});

const attributesOf = ({ id, ordinal, device }: FleetAttempt) => ({
  'matfleet.device.id': device.deviceId,
  'matfleet.attempt.id': id,
  'matfleet.attempt.ordinal': ordinal,
});
