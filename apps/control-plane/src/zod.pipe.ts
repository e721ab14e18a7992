import { Injectable, type PipeTransform } from '@nestjs/common';
import type { ApiBodyOptions } from '@nestjs/swagger';
import { z } from 'zod';
import { DomainError } from './errors.js';

/** Parses a body, query or parameter at the edge; every problem of it in one refusal. */
@Injectable()
export class ZodPipe<T> implements PipeTransform<unknown, T> {
  constructor(private readonly schema: z.ZodType<T>) {}

  transform(value: unknown): T {
    const result = this.schema.safeParse(value ?? {});
    if (result.success) return result.data;
    throw new DomainError('invalid-argument', describeIssues(result.error));
  }
}

export const describeIssues = (error: z.ZodError): string =>
  error.issues
    .slice(0, 10)
    .map((issue) => {
      // A wrong key of a record carries what is wrong with it inside.
      const message = issue.code === 'invalid_key' ? issue.issues.map((inner) => inner.message).join(', ') : issue.message;
      return issue.path.length > 0 ? `${issue.path.join('.')}: ${message}` : message;
    })
    .join('; ');

/** The OpenAPI body of the same schema that the pipe checks. */
export const bodySchema = (schema: z.ZodType): ApiBodyOptions => ({
  schema: z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input', unrepresentable: 'any' }) as NonNullable<
    Extract<ApiBodyOptions, { schema: unknown }>['schema']
  >,
});
