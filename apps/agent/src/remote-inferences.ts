import { status } from '@grpc/grpc-js';
import type { InferenceEvent, StartInference } from '@matfleet/protocol';
import type { LocalServing } from './serving/local-serving.js';
import { ServingError } from './serving/serving-error.js';

const REMEMBERED = 256;

/** Inferences that the control plane started here. One attempt id runs at most once, however often it is sent. */
export class RemoteInferences {
  private readonly running = new Map<string, AbortController>();
  private readonly seen = new Set<string>();

  constructor(
    private readonly serving: Pick<LocalServing, 'generateRemote'>,
    private readonly send: (event: InferenceEvent) => boolean,
  ) {}

  start(start: StartInference): void {
    const { attemptId } = start;
    if (this.seen.has(attemptId)) return;
    this.seen.add(attemptId);
    if (this.seen.size > REMEMBERED) this.seen.delete(this.seen.values().next().value!);
    const abort = new AbortController();
    this.running.set(attemptId, abort);
    void this.run(start, abort).finally(() => this.running.delete(attemptId));
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
      await this.serving.generateRemote(
        { attemptId, remainingMs, request, modelVersionId, sliceId },
        (response) => emit({ $case: 'response', value: response }),
        abort.signal,
      );
    } catch (error) {
      if (error instanceof ServingError) refuse(error.code, error.message);
      else refuse(status.INTERNAL, 'the device failed to answer');
    }
  }
}
