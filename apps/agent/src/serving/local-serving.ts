import { chmod } from 'node:fs/promises';
import { Metadata, Server, ServerCredentials, status, type ServerWritableStream, type ServiceError } from '@grpc/grpc-js';
import type { RemoteInference } from '@matfleet/device';
import {
  InferenceServiceService,
  Refusal,
  SwitchMode,
  type ChangeSliceRequest,
  type ChangeSliceResponse,
  type Finished,
  type GenerateRequest,
  type GenerateResponse,
  type GetStatusResponse,
  type Started,
} from '@matfleet/protocol';
import { HealthImplementation } from 'grpc-health-check';
import type { Supervisor } from '../engine/supervisor.js';
import { createLocalHttp, type HttpOptions } from '../http/server.js';
import type { ToolPrompt } from '../http/tools.js';
import type { LatencyRecorder } from '../latency/latency-recorder.js';
import { Answerer, type Answering } from './answer.js';
import { FallbackAnswerer, type FallbackOptions } from './fallback.js';
import { provenance, provenanceHeaders } from './provenance.js';
import { addReflection } from './reflection.js';
import { ServingError } from './serving-error.js';
import type { Effective } from '../pressure/pressure-loop.js';
import { clearSocketPath } from './socket-path.js';

export interface LocalAddress {
  readonly socket: string;
  readonly port: number;
  /** URL of OpenAI's and Ollama's APIs, where they are served. */
  readonly http?: string;
}

export interface LocalServing {
  /** Opens the Unix socket, the loopback port and the HTTP port; port 0 means any free one, the answer names it. */
  start(): Promise<LocalAddress>;
  /**
   * Runs an inference for the control plane through the same queue as local ones. Resolves after `finished` was emitted; rejects with ServingError,
   * whose `code` is a google.rpc.Code number.
   */
  generateRemote(start: RemoteInference, emit: (event: GenerateResponse) => void | Promise<void>, signal: AbortSignal): Promise<void>;
  queueLength(): number;
  inFlight(): number;
  /** Running answers go on with this slice, but those whose callers named theirs. */
  changeSlice(sliceId: string): void;
  /** Refuses new requests, lets running answers end up to a deadline, closes the sockets. */
  stop(): Promise<void>;
}

/** What the rest of the agent knows and GetStatus tells. */
export interface AgentState {
  readonly deviceId: string;
  readonly deviceName: string;
  readonly online: boolean;
  readonly desiredGeneration: number;
  readonly observedGeneration: number;
}

export interface LocalServingOptions {
  readonly supervisor: Supervisor;
  readonly latency: LatencyRecorder;
  readonly state: () => AgentState;
  /** Who answers what this device cannot; nobody when absent. */
  readonly fallback?: Pick<FallbackOptions, 'others' | 'furthest' | 'active'>;
  /** The slice that answers instead of the active one, and why. */
  readonly effective?: () => Effective | undefined;
  readonly socketPath: string;
  /** Who may open the socket: 0o600 the agent's user, 0o660 its group too. */
  readonly socketMode?: 0o600 | 0o660;
  /** On 127.0.0.1; absent: no TCP port. */
  readonly port?: number;
  /** Absent: no HTTP. */
  readonly http?: Omit<HttpOptions, 'clientStallMs'> & { readonly toolPrompt: ToolPrompt };
  readonly queueLimit?: number;
  readonly engineWaitMs?: number;
  readonly maxAnswerMs?: number;
  /** A client that reads nothing for this long loses its answer, so that others get their turn. */
  readonly clientStallMs?: number;
  readonly stopTimeoutMs?: number;
}

const SERVICE_NAME = 'matfleet.inference.v1.InferenceService';
const REFUSAL_TRAILER = 'matfleet-refusal-bin';
const MAX_REQUEST_BYTES = 4 * 2 ** 20;

export function createLocalServing(options: LocalServingOptions): LocalServing {
  const { supervisor, socketPath, clientStallMs = 30_000, stopTimeoutMs = 10_000 } = options;
  const answerer = new Answerer({
    supervisor,
    latency: options.latency,
    device: options.state,
    queueLimit: options.queueLimit ?? 8,
    engineWaitMs: options.engineWaitMs ?? 5_000,
    maxAnswerMs: options.maxAnswerMs ?? 600_000,
    effectiveSlice: () => options.effective?.()?.sliceId,
  });
  const answering: Answering = options.fallback ? new FallbackAnswerer({ local: answerer, device: options.state, ...options.fallback }) : answerer;
  const health = new HealthImplementation({ '': 'SERVING', [SERVICE_NAME]: 'NOT_SERVING' });
  supervisor.onChange(({ ready }) => health.setStatus(SERVICE_NAME, ready ? 'SERVING' : 'NOT_SERVING'));
  const server = new Server({ 'grpc.max_receive_message_length': MAX_REQUEST_BYTES });
  health.addToServer(server);
  addReflection(server);
  server.addService(InferenceServiceService, {
    generate: (call: ServerWritableStream<GenerateRequest, GenerateResponse>) => void serve(call),
    changeSlice: (
      { request }: { request: ChangeSliceRequest },
      callback: (error: Partial<ServiceError> | null, response?: ChangeSliceResponse) => void,
    ) => {
      try {
        const mode = request.mode === SwitchMode.SWITCH_MODE_PREFILL ? 'prefill' : 'keep';
        answerer.runningAnswers.changeSlice(request.requestId, { sliceId: request.sliceId, mode });
        callback(null, {});
      } catch (error) {
        callback(toServiceError(error));
      }
    },
    getStatus: (_call: unknown, callback: (error: ServiceError | null, response?: GetStatusResponse) => void) => callback(null, getStatus()),
  });

  const http = options.http && createLocalHttp({ ...options.http, clientStallMs }, { supervisor, answering, toolPrompt: options.http.toolPrompt });

  async function serve(call: ServerWritableStream<GenerateRequest, GenerateResponse>): Promise<void> {
    const abort = new AbortController();
    // Also when the deadline passes or the connection breaks.
    call.once('cancelled', () => abort.abort());
    const told: { started?: Started; finished?: Finished } = {};
    const emit = (response: GenerateResponse): void | Promise<void> => {
      const { event } = response;
      if (event?.$case === 'started') told.started = event.value;
      if (event?.$case === 'finished') told.finished = event.value;
      return write(call, response, abort.signal);
    };
    try {
      await answering.answer(call.request, emit, abort.signal, {
        remainingMs: remainingMsOf(call),
        traceParent: call.metadata.get('traceparent')[0]?.toString(),
      });
      call.end(told.started && trailers(told.started, told.finished));
    } catch (error) {
      if (call.cancelled) return;
      call.emit('error', toServiceError(error));
    }
  }

  /** Resolves when the client's window has room again. */
  function write(call: ServerWritableStream<GenerateRequest, GenerateResponse>, event: GenerateResponse, signal: AbortSignal): void | Promise<void> {
    if (signal.aborted || call.write(event)) return undefined;
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        clearTimeout(timer);
        call.off('drain', settle);
        signal.removeEventListener('abort', aborted);
        if (error) reject(error);
        else resolve();
      };
      const aborted = (): void => settle();
      const stalled = new ServingError(status.DEADLINE_EXCEEDED, `the client read nothing of its answer for ${clientStallMs} ms`);
      const timer = setTimeout(() => settle(stalled), clientStallMs);
      call.once('drain', settle);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }

  function getStatus(): GetStatusResponse {
    const { spec, ready, enginePid, restarts, engine } = supervisor.stats();
    const { deviceId, deviceName, online, desiredGeneration, observedGeneration } = options.state();
    const effective = options.effective?.();
    return {
      deviceId,
      deviceName,
      modelVersionId: spec?.modelVersionId ?? '',
      modelName: spec?.modelName ?? '',
      sliceId: spec?.sliceId ?? '',
      effectiveSliceId: effective?.sliceId ?? spec?.sliceId ?? '',
      effectiveReason: effective?.reason ?? '',
      online,
      engineReady: ready,
      enginePid,
      engineRestarts: restarts,
      queueLength: answerer.waiting,
      contextTokens: engine?.contextTokens ?? spec?.contextTokens ?? 0,
      pleRowsRead: BigInt(engine?.pleRowsRead ?? 0),
      pleRowsCached: BigInt(engine?.pleRowsCached ?? 0),
      pleCacheHits: BigInt(engine?.pleCacheHits ?? 0),
      pleReads: BigInt(engine?.pleReads ?? 0),
      pleReadMs: engine?.pleReadMs ?? 0,
      pleReadMsMax: engine?.pleReadMsMax ?? 0,
      hotRowBytes: BigInt(engine?.hotRowBytes ?? 0),
      executionProviders: [...(engine?.executionProviders ?? [])],
      acceleratorBytes: BigInt(engine?.acceleratorBytes ?? 0),
      heldSliceIds: [...(engine?.heldSlices ?? [])],
      memoryLimitBy: engine?.memoryLimitBy ?? '',
      engineRssBytes: BigInt(engine?.rssBytes ?? 0),
      desiredGeneration: BigInt(desiredGeneration),
      observedGeneration: BigInt(observedGeneration),
    };
  }

  return {
    async start() {
      await clearSocketPath(socketPath);
      await bindSocket(server, socketPath, options.socketMode ?? 0o600);
      const port = options.port === undefined ? 0 : await bind(server, `127.0.0.1:${options.port}`);
      health.setStatus(SERVICE_NAME, supervisor.stats().ready ? 'SERVING' : 'NOT_SERVING');
      return { socket: socketPath, port, ...(http && { http: await http.start() }) };
    },

    async generateRemote(start, emit, signal) {
      const deadline = new AbortController();
      const abort = (): void => deadline.abort(signal.reason);
      const timer = setTimeout(() => deadline.abort(), start.remainingMs);
      if (start.remainingMs <= 0) deadline.abort();
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
      try {
        await answerer.answer(start.request, emit, deadline.signal, { expected: start });
      } catch (error) {
        if (deadline.signal.aborted && !signal.aborted)
          throw new ServingError(status.DEADLINE_EXCEEDED, `the deadline passed, ${start.remainingMs} ms after the inference arrived`);
        throw error;
      } finally {
        clearTimeout(timer);
        signal.removeEventListener('abort', abort);
      }
    },

    queueLength: () => answerer.waiting,
    inFlight: () => answerer.running,
    // With its context kept: computing that anew would cost what is short.
    changeSlice: (sliceId) => answerer.runningAnswers.changeUnnamed({ sliceId, mode: 'keep' }),

    async stop() {
      answerer.close();
      const httpStopped = http?.stop(stopTimeoutMs);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          server.forceShutdown();
          resolve();
        }, stopTimeoutMs);
        server.tryShutdown(() => {
          clearTimeout(timer);
          resolve();
        });
      });
      await httpStopped;
    },
  };
}

/** Infinity where the caller set no deadline. */
function remainingMsOf(call: ServerWritableStream<GenerateRequest, GenerateResponse>): number {
  const deadline = call.getDeadline();
  return (typeof deadline === 'number' ? deadline : deadline.getTime()) - Date.now();
}

function trailers(started: Started, finished: Finished | undefined): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(provenanceHeaders(provenance(started, finished)))) metadata.set(name, value);
  metadata.set('x-matfleet-prompt-tokens', String(started.promptTokens));
  metadata.set('x-matfleet-output-tokens', String(finished?.outputTokens ?? 0));
  return metadata;
}

function toServiceError(error: unknown): Partial<ServiceError> {
  if (!(error instanceof ServingError)) return { code: status.INTERNAL, details: 'internal error' };
  const metadata = new Metadata();
  if (error.refusal) metadata.set(REFUSAL_TRAILER, Buffer.from(Refusal.encode(error.refusal).finish()));
  return { code: error.code, details: error.message, metadata };
}

/** The file is made with no right for others; the mode comes after. */
async function bindSocket(server: Server, path: string, mode: number): Promise<void> {
  const umask = process.umask(0o177);
  try {
    await bind(server, `unix:${path}`);
  } finally {
    process.umask(umask);
  }
  await chmod(path, mode);
}

const bind = (server: Server, address: string): Promise<number> =>
  new Promise((resolve, reject) =>
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(new Error(`cannot listen on ${address}: ${error.message}`, { cause: error })) : resolve(port),
    ),
  );
