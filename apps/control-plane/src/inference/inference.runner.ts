import { randomUUID } from 'node:crypto';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { footprint, qualityOf, tokenizerOf, type Manifest, type Slice } from '@matfleet/model';
import { CatalogService } from '../catalog/catalog.service.js';
import { CONFIG, type Config } from '../config.js';
import { goesOnFrom, NOTHING_BEGUN, type BegunAnswer } from '../domain/begun-answer.js';
import { afterFailure, afterSuccess, CLOSED, type Breaker } from '../domain/breaker.js';
import { predictInterTokenMs } from '../domain/latency-model.js';
import { route, silenceDeadlines, type RoutableDevice, type Tried } from '../domain/routing.js';
import { formatQuality } from '../domain/units.js';
import { FleetEvents } from '../events/fleet-events.js';
import type { DeviceView, Observed } from '../fleet/device.js';
import { DeviceLinks, type DeviceLink } from '../fleet/device-links.js';
import { DeviceViews } from '../fleet/device-views.js';
import { Elsewhere } from '../fleet/elsewhere.js';
import { Leases } from '../fleet/leases.js';
import { Replicas } from '../replicas/replicas.service.js';
import { Metrics } from '../telemetry.js';
import { runAttempt, type AttemptOutcome } from './attempt.js';
import { AttemptHub } from './attempt-hub.js';
import type { Inference, InferenceRequest } from './inference.js';
import { InferenceRepository } from './inference.repository.js';
import { InferenceService } from './inference.service.js';

const EXPECTED_TOKENS = 64;
const WAIT_MS = 500;
/** Time to the first token of a short prompt, in tokens, for a device that has not measured its own. */
const FIRST_TOKEN_TOKENS = 10;
/** Enough for a prediction of what a device has not measured. */
const PREDICTION_CONTEXT_TOKENS = 256;
/** A device that has begun is expected to go on: ten times the latency it is meant to have, at least 5 s. */
const nextTokenMs = (targetMs: number): number => Math.max(5_000, 10 * targetMs);
const firstTokenMs = (targetMs: number): number => Math.max(10_000, 2 * targetMs);

/** Answers one inference: best device first, a larger one after a failure, exactly once. */
@Injectable()
export class InferenceRunner {
  private readonly log = new Logger('inference');
  private readonly running = new Map<string, Promise<void>>();
  private readonly breakers = new Map<string, Breaker>();

  constructor(
    private readonly inferences: InferenceRepository,
    private readonly service: InferenceService,
    private readonly views: DeviceViews,
    private readonly leases: Leases,
    private readonly elsewhere: Elsewhere,
    private readonly catalog: CatalogService,
    private readonly links: DeviceLinks,
    private readonly attempts: AttemptHub,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
    private readonly replicas: Replicas,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Safe to repeat: an inference that has ended stays as it is, one that runs here already is only waited for. */
  run(inferenceId: string, signal: AbortSignal): Promise<void> {
    const before = this.running.get(inferenceId);
    if (before) return before;
    const run = this.answer(inferenceId, signal).finally(() => {
      this.running.delete(inferenceId);
      this.service.ended(inferenceId);
    });
    this.running.set(inferenceId, run);
    return run;
  }

  private async answer(id: string, signal: AbortSignal): Promise<void> {
    const [inference, request] = await Promise.all([this.inferences.find(id), this.inferences.request(id)]);
    if (!inference || !request || inference.finishedAt) return;
    const others = this.replicas.peers().map((peer) => peer.id);
    // Its job can be with two replicas at the same time, when the queue lost one for a while.
    if (!(await this.inferences.claim(id, this.replicas.id, others))) return;
    await this.inferences.loseRunning(id, 'the control plane that watched this attempt ended', new Date());
    await this.inferences.setRunning(id);
    this.service.changed(id);
    // What ran before a restart counts as an attempt, but its device may be asked again: no session has epoch 0.
    const tried: Tried[] = inference.attempts.map((attempt) => ({
      deviceId: attempt.deviceId,
      epoch: 0n,
      quality: null,
      endedAtMs: Date.now(),
      retryable: true,
    }));
    let ordinal = inference.attempts.reduce((last, attempt) => Math.max(last, attempt.ordinal), 0);
    let refusal = 'no device was asked';
    let begun = NOTHING_BEGUN;
    while (!signal.aborted) {
      const remainingMs = inference.deadlineAt.getTime() - Date.now();
      if (remainingMs <= 0) return this.fail(id, `deadline-exceeded: not answered by ${inference.deadlineAt.toISOString()}; ${refusal}`);
      const devices = await this.routable(inference.task);
      const decision = route(devices, {
        qualityFloor: inference.qualityFloor,
        remainingMs,
        expectedTokens: request.maxTokens || EXPECTED_TOKENS,
        tried,
        nowMs: Date.now(),
      });
      if (decision.kind === 'none') {
        refusal = decision.reason;
        if (!decision.waitMayHelp) return this.fail(id, `unavailable: ${decision.reason}`);
        await this.somethingChanges(Math.min(WAIT_MS, remainingMs), signal);
        continue;
      }
      ordinal += 1;
      const goesOn = goesOnFrom(begun, devices.find((one) => one.deviceId === decision.device.deviceId)?.vocabulary ?? '');
      const reason = goesOn.tokenIds.length > 0 ? `${decision.reason}; goes on after ${goesOn.tokenIds.length} tokens` : decision.reason;
      const outcome = await this.attempt(inference, request, decision.device, reason, goesOn, ordinal, devices, remainingMs, signal);
      if (outcome.kind === 'answered') return;
      refusal = outcome.error;
      begun = outcome.begun;
      tried.push({
        deviceId: decision.device.deviceId,
        epoch: decision.device.epoch,
        quality: decision.device.active?.quality ?? null,
        endedAtMs: Date.now(),
        retryable: outcome.retryable,
      });
    }
    throw new Error('stopped before the inference was answered');
  }

  private async attempt(
    inference: Inference,
    request: InferenceRequest,
    device: RoutableDevice,
    reason: string,
    begun: BegunAnswer,
    ordinal: number,
    devices: readonly Reachable[],
    remainingMs: number,
    signal: AbortSignal,
  ): Promise<AttemptOutcome> {
    const attemptId = randomUUID();
    const active = device.active!;
    await this.inferences.addAttempt({
      id: attemptId,
      inferenceId: inference.id,
      ordinal,
      deviceId: device.deviceId,
      modelVersionId: active.modelVersionId,
      sliceId: active.sliceId,
      reason,
    });
    this.service.changed(inference.id);
    const others = devices.some(
      (other) =>
        other !== device &&
        other.presence === 'online' &&
        other.active &&
        (inference.qualityFloor === null || (other.active.quality ?? -1) >= inference.qualityFloor),
    );
    const silence = silenceDeadlines(
      { firstTokenMs: firstTokenMs(this.config.targetTtftMs), nextTokenMs: nextTokenMs(this.config.targetInterTokenMs) },
      remainingMs,
      others,
    );
    const reachable = devices.find((one) => one.deviceId === device.deviceId);
    const outcome = await runAttempt(
      {
        device,
        link: reachable?.link,
        begun,
        vocabSize: reachable?.vocabSize ?? 0,
        start: {
          attemptId,
          inferenceId: inference.id,
          remainingMs,
          modelVersionId: active.modelVersionId,
          sliceId: active.sliceId,
          task: inference.task,
          ...request,
        },
        silence,
        signal,
        refuseSlice: (modelVersionId, sliceId) =>
          modelVersionId === active.modelVersionId && sliceId === active.sliceId
            ? null
            : `${device.name} answers with ${sliceId} of ${modelVersionId.slice(0, 12)} instead of ${active.sliceId} (${formatQuality(active.quality)}) of ${active.modelVersionId.slice(0, 12)}`,
        onStarted: () => this.service.wrote(inference.id, ordinal, begun.text),
        onText: (text) => this.service.wrote(inference.id, ordinal, text),
      },
      this.attempts,
    );
    const now = new Date();
    this.metrics.attempts.inc({ outcome: outcome.kind, fallback: String(ordinal > 1) });
    if (outcome.kind === 'answered') {
      this.breakers.delete(device.deviceId);
      await this.inferences.answer(
        inference.id,
        attemptId,
        outcome.text,
        { state: 'succeeded', error: null, ttftMs: outcome.ttftMs, outputTokens: outcome.outputTokens },
        now,
      );
    } else {
      if (!outcome.retryable) this.breakers.set(device.deviceId, afterFailure(this.breakers.get(device.deviceId) ?? CLOSED, Date.now()));
      this.log.warn({ inferenceId: inference.id, attempt: ordinal, device: device.name, reason: outcome.error, msg: 'attempt failed' });
      await this.inferences.endAttempt(attemptId, { state: 'failed', error: outcome.error }, now);
    }
    this.service.changed(inference.id);
    return outcome;
  }

  private async fail(id: string, error: string): Promise<void> {
    await this.inferences.fail(id, error, new Date());
    this.service.changed(id);
  }

  private async routable(task: string | null): Promise<Reachable[]> {
    const devices: Reachable[] = [];
    const elsewhere = await this.elsewhere.read();
    for (const device of await this.views.routable()) {
      const here = this.links.get(device.id);
      const far = here ? undefined : elsewhere.get(device.id);
      const live = far ? undefined : this.leases.state(device.id);
      const running = device.observed && (await this.whatRuns(device.observed));
      const breaker = this.breakers.get(device.id) ?? afterSuccess();
      const interTokenMs = device.latency?.interTokenMs.p50 || (running ? predictedMs(running, device) : 0);
      devices.push({
        deviceId: device.id,
        name: device.name,
        link: here ?? (far && this.links.via?.(device.id, far.epoch, far.address)),
        presence: here || far ? device.presence : device.presence === 'online' ? 'suspect' : device.presence,
        epoch: far?.epoch ?? live?.epoch ?? 0n,
        active:
          running && device.observed
            ? { ...device.observed, sliceName: running.slice.name, quality: qualityOf(running.slice, task ?? undefined)?.value ?? null }
            : null,
        // Another replica does not tell; a device that is not ready refuses, and the next one is asked.
        engineReady: far ? device.observed !== null : (live?.engineReady ?? false),
        queued: Math.max(live?.queued ?? 0, this.attempts.runningOn(device.id)),
        ttftMs: device.latency?.ttftMs.p50 || FIRST_TOKEN_TOKENS * interTokenMs,
        interTokenMs,
        breakerOpenUntilMs: breaker.openUntilMs,
        vocabulary: running ? (tokenizerOf(running.manifest)?.id ?? device.observed!.modelVersionId) : '',
        vocabSize: running?.manifest.config.vocabSize ?? 0,
      });
    }
    return devices;
  }

  /** The manifest and slice that a device runs; null when the catalog no longer knows them. */
  private async whatRuns(observed: Observed): Promise<Running | null> {
    const manifest = await this.catalog.findManifest(observed.modelVersionId);
    const slice = manifest?.slices.find((one) => one.id === observed.sliceId);
    return manifest && slice ? { manifest, slice } : null;
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

interface Reachable extends RoutableDevice {
  readonly link: DeviceLink | undefined;
  /** Equal ones give the same tokens the same text. */
  readonly vocabulary: string;
  readonly vocabSize: number;
}

interface Running {
  readonly manifest: Manifest;
  readonly slice: Slice;
}

/** By the same model that chose the slice, corrected by what was learned of the device. */
function predictedMs({ manifest, slice }: Running, device: DeviceView): number {
  const { bytesPerToken } = footprint(manifest, slice, Math.min(PREDICTION_CONTEXT_TOKENS, manifest.config.maxPositionEmbeddings));
  return (
    predictInterTokenMs({ bytesPerToken, layers: slice.ffn.length }, device.capabilities?.memoryBandwidthBytesPerSecond ?? 0) *
    device.latencyCorrection
  );
}
