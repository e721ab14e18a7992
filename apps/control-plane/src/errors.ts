import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException, Logger } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { GraphQLError } from 'graphql';

/** Each refusal's status on the three transports: HTTP, and google.rpc.Code for gRPC. GraphQL carries the code itself. */
const STATUS = {
  'invalid-argument': { http: 400, grpc: 3 },
  unauthenticated: { http: 401, grpc: 16 },
  'permission-denied': { http: 403, grpc: 7 },
  'not-found': { http: 404, grpc: 5 },
  'already-exists': { http: 409, grpc: 6 },
  'failed-precondition': { http: 409, grpc: 9 },
  'payload-too-large': { http: 413, grpc: 8 },
  'unsupported-media-type': { http: 415, grpc: 3 },
  'out-of-range': { http: 416, grpc: 11 },
  'resource-exhausted': { http: 429, grpc: 8 },
  internal: { http: 500, grpc: 13 },
  unavailable: { http: 503, grpc: 14 },
  'deadline-exceeded': { http: 504, grpc: 4 },
} as const satisfies Record<string, { http: number; grpc: number }>;

export type ErrorCode = keyof typeof STATUS;

/** A refusal that the caller can act on. The message names the thing and the numbers. */
export class DomainError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'DomainError';
  }
}

export const httpStatusOf = (code: ErrorCode): number => STATUS[code].http;
export const grpcStatusOf = (code: ErrorCode): number => STATUS[code].grpc;

/** What a caller is told: refusals as they are, faults of ours without their inside. */
export function describeError(error: unknown): { code: ErrorCode; message: string; status: number } {
  if (error instanceof DomainError) return { code: error.code, message: error.message, status: httpStatusOf(error.code) };
  const status = error instanceof HttpException ? error.getStatus() : statusOfFastify(error);
  if (status === undefined || status >= 500)
    return { code: 'internal', message: 'the control plane failed to answer; its log says why', status: 500 };
  const code = (Object.keys(STATUS) as ErrorCode[]).find((key) => STATUS[key].http === status) ?? 'invalid-argument';
  return { code, message: (error as Error).message, status };
}

const statusOfFastify = (error: unknown): number | undefined =>
  error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : undefined;

/** The one place where an error becomes an answer, for REST and GraphQL alike. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  private readonly log = new Logger('errors');

  catch(error: unknown, host: ArgumentsHost): unknown {
    if (error instanceof GraphQLError) return error;
    const { code, message, status } = describeError(error);
    if (status >= 500 && !(error instanceof DomainError)) this.log.error(error);
    if (host.getType<string>() === 'graphql') return new GraphQLError(message, { extensions: { code } });
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    if (reply.sent || reply.raw.headersSent) return void reply.raw.destroy();
    return void reply
      .code(status)
      .headers({ 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' })
      .send({ code, message });
  }
}
