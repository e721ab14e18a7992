import { status } from '@grpc/grpc-js';
import type { GenerateRequest, GenerateResponse, InferenceEvent, StartInference } from '@matfleet/protocol';
import { traced } from '@matfleet/tracing';

const REMEMBERED = 256;

/** An inference that came over the session instead of a local socket. */
export interface RemoteInference {
  readonly attemptId: string;
  readonly remainingMs: number;
  readonly request: GenerateRequest;
  /** Refused with FAILED_PRECONDITION when another is active; empty strings accept any. */
  readonly modelVersionId: string;
  readonly sliceId: string;
}

/** What answers on this device. */
export interface RemoteAnswers {
  generateRemote(start: RemoteInference, emit: (event: GenerateResponse) => void | Promise<void>, signal: AbortSignal): Promise<void>;
  /** A refusal that the router may read; undefined for a fault of ours, whose inside stays here. */
  refusalOf(error: unknown): { readonly code: number; readonly message: string } | undefined;
}

/** Inferences that the control plane started here. One attempt id runs at most once, however often it is sent. */
export class RemoteInferences {
  private readonly running = new Map<string, AbortController>();
  private readonly seen = new Set<string>();

  constructor(
    private readonly answers: RemoteAnswers,
    private readonly send: (event: InferenceEvent) => boolean,
  ) {}

  start(start: StartInference): void {
    const { attemptId } = start;
    if (this.seen.has(attemptId)) return;
    this.seen.add(attemptId);
    if (this.seen.size > REMEMBERED) this.seen.delete(this.seen.values().next().value!);
    const abort = new AbortController();
    this.running.set(attemptId, abort);
    const attributes = { 'matfleet.attempt.id': attemptId, 'matfleet.slice': start.sliceId };
    const run = traced('run inference', { kind: 'consumer', parent: start.traceParent, attributes }, () => this.run(start, abort));
    void run.finally(() => this.running.delete(attemptId));
  }

  cancel(attemptId: string): void {
    this.running.get(attemptId)?.abort();
  }

  /** The session is gone, and with it whoever waits for the answers. */
  abortAll(): void {
    for (const abort of this.running.values()) abort.abort();
  }

  private async run(start: StartInference, abort: AbortController): Promise<void> {
    const { attemptId, remainingMs, request, modelVersionId, sliceId } = start;
    let sequence = 0n;
    const emit = (event: InferenceEvent['event']): void => {
      // The router has given up an attempt whose session ended: do not spend the engine on it.
      if (!this.send({ attemptId, sequence: ++sequence, event })) abort.abort();
    };
    const refuse = (code: number, message: string): void => emit({ $case: 'failure', value: { code, message } });
    if (!request) return refuse(status.INVALID_ARGUMENT, 'the inference holds no request');
    try {
      await this.answers.generateRemote(
        { attemptId, remainingMs, request, modelVersionId, sliceId },
        (response) => emit({ $case: 'response', value: response }),
        abort.signal,
      );
    } catch (error) {
      const refusal = this.answers.refusalOf(error) ?? { code: status.INTERNAL, message: 'the device failed to answer' };
      refuse(refusal.code, refusal.message);
    }
  }
}
