import { status as grpc } from '@grpc/grpc-js';
import { Refusal_Code } from '@matfleet/protocol';
import { ServingError } from '../serving/serving-error.js';

/** A request that gets no answer: its HTTP status, a code for programs, and the parameter that is to blame. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: { readonly param?: string; readonly retryAfterMs?: number } = {},
  ) {
    super(message);
    this.name = 'HttpError';
  }
}

export const badRequest = (message: string, param?: string, code = 'invalid_request'): HttpError =>
  new HttpError(400, code, message, param === undefined ? {} : { param });

const REFUSALS: Partial<Record<Refusal_Code, readonly [status: number, code: string]>> = {
  [Refusal_Code.CODE_QUEUE_FULL]: [429, 'queue_full'],
  [Refusal_Code.CODE_NO_SLICE]: [503, 'no_slice'],
  [Refusal_Code.CODE_PROMPT_TOO_LONG]: [400, 'context_length_exceeded'],
  [Refusal_Code.CODE_ENGINE_RESTARTING]: [503, 'engine_restarting'],
  [Refusal_Code.CODE_DEADLINE]: [503, 'deadline_unattainable'],
};

const CODES: Partial<Record<grpc, readonly [status: number, code: string]>> = {
  [grpc.INVALID_ARGUMENT]: [400, 'invalid_request'],
  [grpc.NOT_FOUND]: [404, 'model_not_found'],
  [grpc.FAILED_PRECONDITION]: [409, 'failed_precondition'],
  [grpc.DEADLINE_EXCEEDED]: [504, 'deadline_exceeded'],
  [grpc.CANCELLED]: [499, 'cancelled'],
  [grpc.UNAVAILABLE]: [503, 'unavailable'],
};

/** What an error means over HTTP; what nobody foresaw is told as such and no more. */
export function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (!(error instanceof ServingError)) return new HttpError(500, 'internal_error', 'internal error');
  const { refusal } = error;
  const [status, code] = (refusal && REFUSALS[refusal.code]) ?? CODES[error.code] ?? [500, 'internal_error'];
  return new HttpError(status, code, error.message, refusal && refusal.retryAfterMs > 0 ? { retryAfterMs: refusal.retryAfterMs } : {});
}
