import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { DeviceFilter } from '@matfleet/filter';
import type { Actor } from '../audit/audit.js';
import type { Role } from './permissions.js';

/** Who calls REST or GraphQL, as the gate found out. */
export interface CallerIdentity {
  readonly actor: Actor;
  /** In whose rows the call acts. */
  readonly tenantId: string;
  /** May make tenants and act in each. */
  readonly installation: boolean;
  readonly role: Role;
  /** The devices that it means alone, also as it was written; undefined and null: all. */
  readonly devices: DeviceFilter | undefined;
  readonly filter: string | null;
}

const CALLER = Symbol('caller');
type Carrier = FastifyRequest & { [CALLER]?: CallerIdentity };

export const setCaller = (request: FastifyRequest, caller: CallerIdentity): void => void ((request as Carrier)[CALLER] = caller);

/** Undefined for a request that the gate let pass without asking who it is. */
export const callerOf = (request: FastifyRequest): CallerIdentity | undefined => (request as Carrier)[CALLER];

/** The request behind a call, over HTTP or over GraphQL's WebSocket. */
export const requestOf = (context: ExecutionContext): FastifyRequest =>
  context.getType<string>() === 'graphql'
    ? context.getArgByIndex<{ req: FastifyRequest }>(2).req
    : context.switchToHttp().getRequest<FastifyRequest>();

const required = (context: ExecutionContext): CallerIdentity => {
  const caller = callerOf(requestOf(context));
  if (!caller) throw new Error('a call that changes something came by a route that the gate does not guard');
  return caller;
};

/** The API key behind a call of REST or GraphQL, for the audit log. */
export const Caller = createParamDecorator((_data: unknown, context: ExecutionContext): Actor => required(context).actor);

/** All that is known of who calls. */
export const CallerInfo = createParamDecorator((_data: unknown, context: ExecutionContext): CallerIdentity => required(context));
