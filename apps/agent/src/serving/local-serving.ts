import type { GenerateRequest, GenerateResponse } from '@matfleet/protocol';

/** An inference that came over the session instead of a local socket. */
export interface RemoteInference {
  readonly attemptId: string;
  readonly remainingMs: number;
  readonly request: GenerateRequest;
  /** Refused with FAILED_PRECONDITION when another is active; empty strings accept any. */
  readonly modelVersionId: string;
  readonly sliceId: string;
}

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
