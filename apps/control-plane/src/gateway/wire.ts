// The only place where protobuf messages meet the control plane's own types.
import { emptyHistogram, Histogram } from '@matfleet/model';
import {
  ChangeOver as WireChangeOver,
  ActivationStep as WireStep,
  FailureClass as WireFailure,
  Finished,
  FinishReason,
  Phase as WirePhase,
  PowerSource,
  Role,
  Started,
  type Activation as WireActivation,
  type Capabilities as WireCapabilities,
  type Condition as WireCondition,
  type GenerateRequest,
  type GenerateResponse,
  type Heartbeat,
  type Histogram as WireHistogram,
  type InferenceEvent,
  type Logprobs,
  type Observed as WireObserved,
  type Report,
  type SessionResponse,
  type StartInference,
} from '@matfleet/protocol';
import { DomainError } from '../errors.js';
import type { Activation, ActivationStep, Capabilities, Condition, FailureClass, Observed, Phase, PhaseReport } from '../fleet/device.js';
import type { ChatMessage, DesiredDocument, InferenceStart, Outbound } from '../fleet/device-links.js';
import type { Beat } from '../fleet/fleet.service.js';
import type { AttemptEvent } from '../inference/attempt-hub.js';

const LATENCY_REPORTS_MAX = 16;
const TEXT_MAX = 1_000;
const LIST_MAX = 64;

export function capabilitiesOf(wire: WireCapabilities | undefined): Capabilities {
  if (!wire) throw new DomainError('invalid-argument', 'Hello carries no capabilities');
  return {
    architecture: text(wire.architecture),
    platform: text(wire.platform),
    cores: wire.cores,
    cpuFeatures: wire.cpuFeatures.slice(0, LIST_MAX).map((value) => text(value)),
    totalMemoryBytes: Number(wire.totalMemoryBytes),
    availableMemoryBytes: Number(wire.availableMemoryBytes),
    modelMemoryBytes: Number(wire.modelMemoryBytes),
    runtimeMemoryBytes: Number(wire.runtimeMemoryBytes),
    freeDiskBytes: Number(wire.freeDiskBytes),
    memoryBandwidthBytesPerSecond: Number(wire.memoryBandwidthBytesPerSecond),
    executionProviders: wire.executionProviders.slice(0, LIST_MAX).map((value) => text(value)),
    nodeVersion: text(wire.nodeVersion),
    runtimeVersion: text(wire.runtimeVersion),
    memoryLimitBytes: Number(wire.memoryLimitBytes),
    diskRandomReadMs: wire.diskRandomReadMs ?? null,
    unifiedMemory: wire.unifiedMemory,
    timeZone: text(wire.timeZone, 64),
  };
}

/** Null while the device runs nothing. */
export const observedOf = (wire: WireObserved | undefined): Observed | null =>
  wire && wire.modelVersionId !== ''
    ? { generation: Number(wire.generation), modelVersionId: text(wire.modelVersionId), sliceId: text(wire.sliceId) }
    : null;

export function beatOf(wire: Heartbeat): Beat {
  return {
    queued: wire.queueLength + wire.inFlight,
    engineReady: wire.engineReady,
    availableMemoryBytes: Number(wire.availableMemoryBytes),
    memoryBandwidthBytesPerSecond: Number(wire.memoryBandwidthBytesPerSecond),
    condition: wire.condition ? conditionOf(wire.condition) : null,
    ...(wire.effective && { effective: { sliceId: text(wire.effective.sliceId), reason: text(wire.effective.reason) } }),
    latency: wire.latency.slice(0, LATENCY_REPORTS_MAX).map((report) => ({
      modelVersionId: text(report.modelVersionId),
      sliceId: text(report.sliceId),
      ttft: histogramOf(report.ttftMs),
      interToken: histogramOf(report.interTokenMs),
      queue: histogramOf(report.queueMs),
      outputTokens: Number(report.outputTokens),
      failed: Number(report.failed),
    })),
  };
}

const POWERS: Partial<Record<PowerSource, Condition['power']>> = {
  [PowerSource.POWER_SOURCE_MAINS]: 'mains',
  [PowerSource.POWER_SOURCE_BATTERY]: 'battery',
};

const finite = (value: number | undefined): number | null => (value !== undefined && Number.isFinite(value) ? value : null);

function conditionOf(wire: WireCondition): Condition {
  return {
    memorySomePercent: finite(wire.memorySomePercent),
    memoryFullPercent: finite(wire.memoryFullPercent),
    power: POWERS[wire.power] ?? null,
    batteryPercent: finite(wire.batteryPercent),
    temperatureCelsius: finite(wire.temperatureCelsius),
    throttlesAtCelsius: finite(wire.throttlesAtCelsius),
    roundTripMs: finite(wire.roundTripMs),
  };
}

const PHASES: Partial<Record<WirePhase, Phase>> = {
  [WirePhase.PHASE_FETCHING]: 'fetching',
  [WirePhase.PHASE_VERIFYING]: 'verifying',
  [WirePhase.PHASE_ACTIVATING]: 'activating',
  [WirePhase.PHASE_ACTIVE]: 'active',
  [WirePhase.PHASE_FAILED]: 'failed',
  [WirePhase.PHASE_FETCHED]: 'fetched',
};

const STEPS: Partial<Record<WireStep, ActivationStep>> = {
  [WireStep.ACTIVATION_STEP_VERIFYING]: 'verifying',
  [WireStep.ACTIVATION_STEP_PREPARING]: 'preparing',
  [WireStep.ACTIVATION_STEP_STARTING]: 'starting',
  [WireStep.ACTIVATION_STEP_CHECKING]: 'checking',
  [WireStep.ACTIVATION_STEP_COMMITTED]: 'committed',
  [WireStep.ACTIVATION_STEP_REJECTED]: 'rejected',
  [WireStep.ACTIVATION_STEP_REVERTED]: 'reverted',
};

const FAILURES: Partial<Record<WireFailure, FailureClass>> = {
  [WireFailure.FAILURE_CLASS_FETCH]: 'fetch',
  [WireFailure.FAILURE_CLASS_VERIFY]: 'verify',
  [WireFailure.FAILURE_CLASS_DISK]: 'disk',
  [WireFailure.FAILURE_CLASS_START]: 'start',
  [WireFailure.FAILURE_CLASS_GOLDEN]: 'golden',
  [WireFailure.FAILURE_CLASS_LATENCY]: 'latency',
  [WireFailure.FAILURE_CLASS_MEMORY]: 'memory',
  [WireFailure.FAILURE_CLASS_CRASH_LOOP]: 'crash-loop',
  [WireFailure.FAILURE_CLASS_INTERRUPTED]: 'interrupted',
};

/** Null where the device says nothing, or a step that only a newer protocol knows. */
function activationOf(wire: WireActivation | undefined): Activation | null {
  const step = wire && STEPS[wire.step];
  if (!step) return null;
  return {
    step,
    reason: wire.reason === '' ? null : text(wire.reason),
    failure: FAILURES[wire.failure] ?? null,
    goldenPromptsTotal: wire.goldenPromptsTotal,
    goldenPromptsMatched: wire.goldenPromptsMatched,
    goldenTokensTotal: wire.goldenTokensTotal,
    goldenTokensMatched: wire.goldenTokensMatched,
    previousTokensTotal: wire.previousTokensTotal,
    previousTokensMatched: wire.previousTokensMatched,
    ttftMs: finite(wire.ttftMs),
    interTokenMs: finite(wire.interTokenMs),
    residentBytes: wire.residentBytes === undefined ? null : Number(wire.residentBytes),
    replacedFirst: wire.replacedFirst,
  };
}

export function phaseReportOf(wire: Report): PhaseReport {
  const phase = PHASES[wire.phase];
  if (!phase) throw new DomainError('invalid-argument', `report ${wire.sequence} has the unknown phase ${wire.phase}`);
  return {
    generation: Number(wire.generation),
    phase,
    observed: observedOf(wire.observed),
    fetchedBytes: Number(wire.fetchedBytes),
    totalBytes: Number(wire.totalBytes),
    error: wire.error === '' ? null : text(wire.error),
    activation: activationOf(wire.activation),
  };
}

const FINISHES: Partial<Record<FinishReason, Extract<AttemptEvent, { kind: 'finished' }>['reason']>> = {
  [FinishReason.FINISH_REASON_STOP]: 'stop',
  [FinishReason.FINISH_REASON_MAX_TOKENS]: 'max-tokens',
  [FinishReason.FINISH_REASON_CONTEXT_FULL]: 'context-full',
};

/** Null for an event that a newer protocol knows and this one does not. */
export function attemptEventOf(wire: InferenceEvent): AttemptEvent | null {
  if (wire.event?.$case === 'failure') return { kind: 'failed', code: wire.event.value.code, message: text(wire.event.value.message) };
  const event = wire.event?.value.event;
  switch (event?.$case) {
    case 'started': {
      const { modelVersionId, modelName, sliceId, precision = '', promptTokens } = event.value;
      return { kind: 'started', modelVersionId, modelName: text(modelName), sliceId, precision: text(precision), promptTokens };
    }
    case 'delta': {
      const { text, tokenIds, logprobs } = event.value;
      return { kind: 'delta', text, tokenIds, ...(logprobs && { logprobs }) };
    }
    case 'finished': {
      const { reason, outputTokens, ttftMs, tokensPerSecond, cachedPromptTokens } = event.value;
      return { kind: 'finished', reason: FINISHES[reason] ?? 'cancelled', outputTokens, ttftMs, tokensPerSecond, cachedPromptTokens };
    }
    case undefined:
      return null;
  }
}

const WIRE_FINISHES = {
  stop: FinishReason.FINISH_REASON_STOP,
  'max-tokens': FinishReason.FINISH_REASON_MAX_TOKENS,
  'context-full': FinishReason.FINISH_REASON_CONTEXT_FULL,
  cancelled: FinishReason.FINISH_REASON_CANCELLED,
} as const;

/** The way back of `attemptEventOf`, for a device that hears it for another one. */
export function generateResponseOf(event: Extract<AttemptEvent, { kind: 'started' | 'delta' | 'finished' }>): GenerateResponse {
  switch (event.kind) {
    case 'started': {
      const { kind, ...told } = event;
      return { event: { $case: kind, value: Started.fromPartial(told) } };
    }
    case 'delta': {
      const { kind, text, tokenIds, logprobs } = event;
      return { event: { $case: kind, value: { text, tokenIds: [...tokenIds], ...(logprobs && { logprobs: logprobs as Logprobs }) } } };
    }
    case 'finished': {
      const { kind, reason, ...told } = event;
      return { event: { $case: kind, value: Finished.fromPartial({ ...told, reason: WIRE_FINISHES[reason] }) } };
    }
  }
}

/** The same for a replica, which also hears failures. */
export function inferenceEventOf(attemptId: string, sequence: bigint, event: Exclude<AttemptEvent, { kind: 'lost' }>): InferenceEvent {
  if (event.kind !== 'failed') return { attemptId, sequence, event: { $case: 'response', value: generateResponseOf(event) } };
  return { attemptId, sequence, event: { $case: 'failure', value: { code: event.code, message: event.message } } };
}

const ROLES: Record<ChatMessage['role'], Role> = { system: Role.ROLE_SYSTEM, user: Role.ROLE_USER, model: Role.ROLE_MODEL };

const CHANGE_OVERS: Record<DesiredDocument['changeOver'], WireChangeOver> = {
  'at-once': WireChangeOver.CHANGE_OVER_AT_ONCE,
  'when-idle': WireChangeOver.CHANGE_OVER_WHEN_IDLE,
  hold: WireChangeOver.CHANGE_OVER_HOLD,
};

export function toWire(message: Outbound): SessionResponse {
  switch (message.kind) {
    case 'desired': {
      const { generation, modelVersionId, modelName, sliceId, contextTokens, reason, rolloutId, changeOver, traceParent } = message.document;
      return {
        message: {
          $case: 'desired',
          value: {
            ...{ modelVersionId, modelName, sliceId, contextTokens, reason },
            generation: BigInt(generation),
            updateId: rolloutId ?? '',
            changeOver: CHANGE_OVERS[changeOver],
            traceParent: traceParent ?? undefined,
          },
        },
      };
    }
    case 'start-inference': {
      const { attemptId, inferenceId, remainingMs, modelVersionId, sliceId, messages, sampling, maxTokens, task, answeredIds, more, traceParent } =
        message.start;
      return {
        message: {
          $case: 'startInference',
          value: {
            attemptId,
            inferenceId,
            remainingMs: Math.max(1, Math.round(remainingMs)),
            modelVersionId,
            sliceId,
            traceParent,
            request: {
              requestId: attemptId,
              messages: messages.map(({ role, text: content }) => ({ role: ROLES[role], parts: [{ content: { $case: 'text', value: content } }] })),
              sampling: sampling ? { ...sampling, seed: sampling.seed === undefined ? undefined : BigInt(sampling.seed) } : undefined,
              maxTokens,
              task: task ?? '',
              ...more,
              ...(answeredIds.length > 0 && { answered: { tokenIds: [...answeredIds] } }),
            },
          },
        },
      };
    }
    case 'cancel-inference':
      return { message: { $case: 'cancelInference', value: { attemptId: message.attemptId } } };
    case 'drain':
      return { message: { $case: 'drain', value: { withinMs: message.withinMs, reason: message.reason } } };
  }
}

/** What of a device's request only another device reads. */
const moreOf = ({ output, prompt, priority, caller }: GenerateRequest): Partial<GenerateRequest> => ({
  ...(output && { output }),
  ...(prompt !== undefined && { prompt }),
  ...(priority !== undefined && { priority }),
  ...(caller !== undefined && { caller }),
});

/** The way back of `toWire`, for a replica that starts it for another one. */
export function inferenceStartOf(wire: StartInference | undefined): InferenceStart {
  if (!wire?.request) throw new DomainError('invalid-argument', 'the attempt carries no request');
  const { attemptId, inferenceId, remainingMs, modelVersionId, sliceId, request } = wire;
  return {
    ...{ attemptId, inferenceId, remainingMs, modelVersionId, sliceId },
    ...requestOf(request),
    answeredIds: request.answered?.tokenIds ?? [],
  };
}

export function requestOf(request: GenerateRequest): Pick<InferenceStart, 'messages' | 'sampling' | 'maxTokens' | 'task' | 'more'> {
  const { temperature, topK, topP, seed } = request.sampling ?? {};
  return {
    messages: request.messages.map(({ role, parts }) => ({
      role: (Object.keys(ROLES) as ChatMessage['role'][]).find((name) => ROLES[name] === role) ?? 'user',
      text: parts.map(({ content }) => (content?.$case === 'text' ? content.value : '')).join(''),
    })),
    sampling: request.sampling ? { temperature, topK, topP, seed: seed === undefined ? undefined : Number(seed) } : null,
    maxTokens: request.maxTokens,
    task: request.task === '' ? null : request.task,
    more: moreOf(request),
  };
}

function histogramOf(wire: WireHistogram | undefined): Histogram {
  if (!wire) return emptyHistogram;
  const result = Histogram.safeParse({ ...wire, counts: wire.counts.map(Number), zeroCount: Number(wire.zeroCount), count: Number(wire.count) });
  if (!result.success) throw new DomainError('invalid-argument', `a latency histogram is not valid: ${result.error.issues[0]?.message ?? ''}`);
  return result.data;
}

/** Cut to what is kept, and without what PostgreSQL cannot hold: zero characters, and halves of surrogate pairs. */
export const text = (value: string, max = TEXT_MAX): string => value.slice(0, max).replaceAll('\0', '').toWellFormed();
