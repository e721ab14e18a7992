import { randomUUID } from 'node:crypto';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { traced } from '@matfleet/tracing';
import { CONFIG, type Config } from '../config.js';
import { goesOnFrom, type BegunAnswer } from '../domain/begun-answer.js';
import { route, silenceDeadlines, type Tried } from '../domain/routing.js';
import { formatQuality } from '../domain/units.js';
import { FleetEvents } from '../events/fleet-events.js';
import type { InferenceStart } from '../fleet/device-links.js';
import { Metrics } from '../telemetry.js';
import { runAttempt, type AttemptOutcome } from './attempt.js';
import { AttemptHub, type AttemptEvent } from './attempt-hub.js';
import { Breakers } from './breakers.js';
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
    const { qualityFloor, request, mayAsk = () => true } = wanted;
    const tried = [...wanted.tried];
    let { begun, firstOrdinal: ordinal } = wanted;
    let refusal = 'no device was asked';
    while (!signal.aborted) {
      const remainingMs = wanted.deadlineAtMs - Date.now();
      if (remainingMs <= 0)
        return { kind: 'failed', error: `deadline-exceeded: not answered by ${new Date(wanted.deadlineAtMs).toISOString()}; ${refusal}` };
      const devices = (await this.devices.list(request.task)).filter(mayAsk);
      const nowMs = Date.now();
      const decision = route(devices, { qualityFloor, remainingMs, expectedTokens: request.maxTokens || EXPECTED_TOKENS, tried, nowMs });
      if (decision.kind === 'none') {
        refusal = decision.reason;
        const worthIt = decision.waitMayHelp && (wanted.waits || tried.some((one) => one.retryable));
        if (!worthIt) return { kind: 'failed', error: `unavailable: ${decision.reason}` };
        await this.somethingChanges(Math.min(WAIT_MS, remainingMs), signal);
        continue;
      }
      const { device } = decision;
      const active = device.active!;
      const goesOn = goesOnFrom(begun, device.vocabulary);
      const attempt: FleetAttempt = {
        id: randomUUID(),
        ordinal: ordinal++,
        device,
        modelVersionId: active.modelVersionId,
        sliceId: active.sliceId,
        reason: goesOn.tokenIds.length > 0 ? `${decision.reason}; goes on after ${goesOn.tokenIds.length} tokens` : decision.reason,
        begun: goesOn,
      };
      await watcher.begins(attempt);
      const othersCould = devices.some((other) => other !== device && couldAnswer(other, qualityFloor));
      const attributes = { 'matfleet.device.id': device.deviceId, 'matfleet.attempt.id': attempt.id, 'matfleet.attempt.ordinal': attempt.ordinal };
      const outcome = await traced('attempt', { attributes }, async (span) => {
        const ended = await this.run(attempt, wanted, remainingMs, othersCould, watcher, signal);
        span.set({ 'matfleet.attempt.outcome': ended.kind });
        return ended;
      });
      await watcher.ended(attempt, outcome);
      if (outcome.kind === 'answered') return { kind: 'answered' };
      refusal = outcome.error;
      begun = outcome.begun;
      tried.push({
        deviceId: device.deviceId,
        epoch: device.epoch,
        quality: active.quality,
        endedAtMs: Date.now(),
        retryable: outcome.retryable,
      });
    }
    throw new Error('stopped before the inference was answered');
  }

  private async run(
    attempt: FleetAttempt,
    { inferenceId, request }: Wanted,
    remainingMs: number,
    othersCould: boolean,
    watcher: AnswerWatcher,
    signal: AbortSignal,
  ): Promise<AttemptOutcome> {
    const { id, device, ordinal, modelVersionId, sliceId, begun } = attempt;
    const { targetTtftMs, targetInterTokenMs } = this.config;
    const terms = { firstTokenMs: firstTokenMs(targetTtftMs), nextTokenMs: nextTokenMs(targetInterTokenMs) };
    const key = { deviceId: device.deviceId, modelVersionId, sliceId };
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
        onText: (text) => watcher.wrote(attempt, text),
        onEvent: (event) => watcher.hears?.(attempt, event),
      },
      this.attempts,
    );
    this.metrics.attempts.inc({ outcome: outcome.kind, fallback: String(ordinal > 1) });
    if (outcome.kind === 'answered') this.breakers.succeeded(key);
    else {
      if (outcome.retryable) this.breakers.saidNothing(key);
      else this.breakers.failed(key);
      this.log.warn({ inferenceId, attempt: ordinal, device: device.name, reason: outcome.error, msg: 'attempt failed' });
    }
    return outcome;
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
