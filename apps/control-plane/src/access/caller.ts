import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { Actor } from '../audit/audit.js';

const ACTOR = Symbol('actor');
type Carrier = FastifyRequest & { [ACTOR]?: Actor };

/** Written by the gate once it knows whose key a request carries. */
export const setCaller = (request: FastifyRequest, apiKeyId: string): void => void ((request as Carrier)[ACTOR] = `key:${apiKeyId}`);

/** The API key behind a call of REST or GraphQL, for the audit log. */
export const Caller = createParamDecorator((_data: unknown, context: ExecutionContext): Actor => {
  const request =
    context.getType<string>() === 'graphql' ? context.getArgByIndex<{ req: Carrier }>(2).req : context.switchToHttp().getRequest<Carrier>();
  const actor = request[ACTOR];
  if (!actor) throw new Error('a call that changes something came by a route that the gate does not guard');
  return actor;
});
