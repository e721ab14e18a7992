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

/** RFC 9457. `code` is what a program looks at; `message` is the same text as `detail`, as GraphQL calls it. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  readonly message: string;
}

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8';

export const problemOf = (code: ErrorCode, message: string): Problem => ({
  type: `urn:matfleet:problem:${code}`,
  title: TITLES[code],
  status: httpStatusOf(code),
  detail: message,
  code,
  message,
});

const TITLES: Readonly<Record<ErrorCode, string>> = {
  'invalid-argument': 'The request is not valid',
  unauthenticated: 'A valid API key or login is needed',
  'permission-denied': 'The caller may not do this',
  'not-found': 'There is no such thing',
  'already-exists': 'It exists already',
  'failed-precondition': 'It is not possible in the present state',
  'payload-too-large': 'The body is too large',
  'unsupported-media-type': 'The body is of an unsupported type',
  'out-of-range': 'The range lies outside',
  'resource-exhausted': 'Too much at once',
  internal: 'The control plane failed',
  unavailable: 'Not available now',
  'deadline-exceeded': 'The deadline passed',
};

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
      .headers({ 'content-type': PROBLEM_TYPE, 'cache-control': 'no-store' })
      .send({ ...problemOf(code, message), status });
  }
}
