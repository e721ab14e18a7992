import { chmod } from 'node:fs/promises';
import { Metadata, Server, ServerCredentials, status, type ServerWritableStream, type ServiceError } from '@grpc/grpc-js';
import type { RemoteInference } from '@matfleet/device';
import { InferenceServiceService, Refusal, type GenerateRequest, type GenerateResponse, type GetStatusResponse } from '@matfleet/protocol';
import { HealthImplementation } from 'grpc-health-check';
import type { Supervisor } from '../engine/supervisor.js';
import type { LatencyRecorder } from '../latency/latency-recorder.js';
import { Answerer } from './answer.js';
import { ServingError } from './serving-error.js';
import { clearSocketPath } from './socket-path.js';

export interface LocalServing {
  /** Opens the Unix socket and the loopback port; port 0 means any free one, the answer names it. */
  start(): Promise<{ readonly socket: string; readonly port: number }>;
  /**
   * Runs an inference for the control plane through the same queue as local ones. Resolves after `finished` was emitted; rejects with ServingError,
   * whose `code` is a google.rpc.Code number.
   */
  generateRemote(start: RemoteInference, emit: (event: GenerateResponse) => void | Promise<void>, signal: AbortSignal): Promise<void>;
  queueLength(): number;
  inFlight(): number;
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
  readonly socketPath: string;
  /** Who may open the socket: 0o600 the agent's user, 0o660 its group too. */
  readonly socketMode?: 0o600 | 0o660;
  /** On 127.0.0.1; absent: no TCP port. */
  readonly port?: number;
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
    deviceId: () => options.state().deviceId,
    queueLimit: options.queueLimit ?? 8,
    engineWaitMs: options.engineWaitMs ?? 5_000,
    maxAnswerMs: options.maxAnswerMs ?? 600_000,
  });
  const health = new HealthImplementation({ '': 'SERVING', [SERVICE_NAME]: 'NOT_SERVING' });
  supervisor.onChange(({ ready }) => health.setStatus(SERVICE_NAME, ready ? 'SERVING' : 'NOT_SERVING'));
  const server = new Server({ 'grpc.max_receive_message_length': MAX_REQUEST_BYTES });
  health.addToServer(server);
  server.addService(InferenceServiceService, {
    generate: (call: ServerWritableStream<GenerateRequest, GenerateResponse>) => void serve(call),
    getStatus: (_call: unknown, callback: (error: ServiceError | null, response?: GetStatusResponse) => void) => callback(null, getStatus()),
  });

  async function serve(call: ServerWritableStream<GenerateRequest, GenerateResponse>): Promise<void> {
    const abort = new AbortController();
    // Also when the deadline passes or the connection breaks.
    call.once('cancelled', () => abort.abort());
    try {
      await answerer.answer(call.request, (event) => write(call, event, abort.signal), abort.signal);
      call.end();
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
    return {
      deviceId,
      deviceName,
      modelVersionId: spec?.modelVersionId ?? '',
      modelName: spec?.modelName ?? '',
      sliceId: spec?.sliceId ?? '',
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
      return { socket: socketPath, port };
    },

    async generateRemote(start, emit, signal) {
      const deadline = new AbortController();
      const abort = (): void => deadline.abort(signal.reason);
      const timer = setTimeout(() => deadline.abort(), start.remainingMs);
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
      try {
        await answerer.answer(start.request, emit, deadline.signal, start);
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

    async stop() {
      answerer.close();
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
    },
  };
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
