import { status } from '@grpc/grpc-js';
import { Refusal_Code, type Refusal } from '@matfleet/protocol';

/** A request that ended without its answer. `code` is a google.rpc.Code number; the refusal says why and when to come back. */
export class ServingError extends Error {
  constructor(
    readonly code: status,
    message: string,
    readonly refusal?: Refusal,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'ServingError';
  }
}

export const invalid = (message: string): ServingError => new ServingError(status.INVALID_ARGUMENT, message);

export const refused = (code: status, reason: Refusal_Code, message: string, retryAfterMs = 0): ServingError =>
  new ServingError(code, message, { code: reason, message, retryAfterMs: Math.round(retryAfterMs) });
