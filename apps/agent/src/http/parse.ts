import type { z } from 'zod';
import { badRequest, type HttpError } from './http-error.js';

/** Throws 400 that names the first parameter that is wrong, as `messages.1.content`. */
export function parse<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw toError(result.error.issues[0]!, []);
}

function toError(issue: z.core.$ZodIssue, outer: readonly PropertyKey[]): HttpError {
  const path = [...outer, ...issue.path];
  // Of a union, the branch that came furthest says most.
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const furthest = issue.errors.map((issues) => issues[0]!).sort((a, b) => b.path.length - a.path.length)[0]!;
    return toError(furthest, path);
  }
  if (issue.code === 'unrecognized_keys') {
    const param = [...path, issue.keys[0]!].join('.');
    return badRequest(`this agent does not know the parameter ${param}`, param, 'unknown_parameter');
  }
  const param = path.join('.');
  return badRequest(param === '' ? issue.message : `${param}: ${issue.message}`, param);
}
