import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { AnswerRequest, AnswerResponse, FallbackServiceClient } from '@matfleet/protocol';
import type { Emit } from './serving/answer.js';
import type { OtherDevices } from './serving/fallback.js';
import { ServingError } from './serving/serving-error.js';

/** Beyond the deadline that the control plane keeps itself. */
const GRACE_MS = 2_000;

/** Other devices' answers, through the control plane. */
export class FleetAnswers implements OtherDevices {
  constructor(
    private readonly client: () => FallbackServiceClient | undefined,
    private readonly online: () => boolean,
  ) {}

  get reachable(): boolean {
    return this.online() && this.client() !== undefined;
  }

  async answer(request: AnswerRequest, emit: Emit, signal: AbortSignal): Promise<void> {
    const client = this.client();
    if (!client) throw new ServingError(status.UNAVAILABLE, 'this device belongs to no fleet yet');
    const call = client.answer(request, new Metadata(), { deadline: Date.now() + request.remainingMs + GRACE_MS });
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
    let finished = false;
    try {
      for await (const { response } of call as AsyncIterable<AnswerResponse>) {
        if (!response) continue;
        finished ||= response.event?.$case === 'finished';
        await emit(response);
      }
    } catch (error) {
      if (signal.aborted) throw new ServingError(status.CANCELLED, 'the caller cancelled the request or its deadline passed');
      if (error instanceof ServingError) throw error;
      const { code = status.INTERNAL, details, message } = error as ServiceError;
      throw new ServingError(code, details || message, undefined, { cause: error });
    } finally {
      signal.removeEventListener('abort', cancel);
      call.cancel();
    }
    if (!finished) throw new ServingError(status.UNAVAILABLE, 'the control plane ended the answer before its end');
  }
}
