import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { isLoopback } from '../config.js';
import { inNone, inTenant } from '../database/scope.js';
import { type ErrorCode, httpStatusOf, PROBLEM_TYPE, problemOf } from '../errors.js';
import { parseFilter } from '../fleet/device-filter.js';
import type { KeyRow } from './access.repository.js';
import type { ApiKeyService } from './api-key.service.js';
import { callerOf, setCaller } from './caller.js';
import type { TenantService } from '../tenancy/tenant.service.js';
import { SESSION_COOKIE, type SessionService } from './session.service.js';

/** Routes that anybody may use: the console's files, health, the API's own description, the login, and chunks at an address that was signed. */
const OPEN = [
  /^\/healthz$/,
  /^\/readyz$/,
  /^\/api\/docs/,
  /^\/api\/openapi\.json$/,
  /^POST \/api\/v1\/session$/,
  /^GET \/api\/v1\/signed-chunks\/:id$/,
];
const GUARDED = /^\/(api|graphql|metrics)(\/|$)/;

/** In which tenant a call of the installation's acts. */
export const TENANT_HEADER = 'x-matfleet-tenant';

export interface GateOptions {
  keys: ApiKeyService;
  sessions: SessionService;
  tenants: TenantService;
  behindProxy: boolean;
}

/**
 * The one check of who asks, in front of REST, GraphQL and its WebSocket: a route under /api, /graphql or /metrics that is not named
 * as open is closed. What a caller may do is the `AccessGuard`'s. It looks at the route that matched, not at the URL, so that no spelling of a URL goes round it.
 */
export function installGate(fastify: FastifyInstance, options: GateOptions): void {
  fastify.addHook('onRequest', async (request, reply) => {
    const route = request.routeOptions.url;
    if (route === undefined || isOpen(request.method, route)) return;
    if (route === '/metrics' && isFromThisMachine(request, options.behindProxy)) return;
    const refusal = await check(request, options);
    if (refusal) await refuse(request, reply, ...refusal);
  });
  // Twice, because what reads a body calls back from the socket, which knows of no caller.
  fastify.addHook('onRequest', (request, _reply, done) => asCaller(request, done));
  fastify.addHook('preHandler', (request, _reply, done) => asCaller(request, done));
}

function asCaller(request: FastifyRequest, done: () => void): void {
  const caller = callerOf(request);
  if (caller) inTenant(caller.tenantId, done, caller.devices);
  else inNone(done);
}

export const isOpen = (method: string, route: string): boolean =>
  !GUARDED.test(route) || OPEN.some((pattern) => pattern.test(route) || pattern.test(`${method} ${route}`));

async function check(request: FastifyRequest, { keys, sessions, tenants }: GateOptions): Promise<[ErrorCode, string] | undefined> {
  const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) {
    const key = await keys.verify(bearer);
    return key ? admit(request, key, tenants) : ['unauthenticated', 'this API key is unknown or revoked'];
  }
  const cookie = request.cookies[SESSION_COOKIE];
  const key = cookie === undefined ? undefined : await sessions.verify(cookie);
  if (!key) return ['unauthenticated', 'an API key is needed: Authorization: Bearer <key>, or a login at POST /api/v1/session'];
  const refusal = await admit(request, key, tenants);
  if (refusal) return refusal;
  const isReading = (request.method === 'GET' || request.method === 'HEAD') && !isUpgrade(request);
  return isReading || isSameOrigin(request.headers)
    ? undefined
    : ['permission-denied', `a request with a cookie must come from this origin, not from ${request.headers.origin ?? 'an unknown one'}`];
}

/** The caller acts in its own tenant; one of the installation may name another. */
async function admit(
  request: FastifyRequest,
  { id, tenantId, installation, role, deviceFilter }: KeyRow,
  tenants: TenantService,
): Promise<[ErrorCode, string] | undefined> {
  const named = request.headers[TENANT_HEADER];
  const wanted = typeof named === 'string' && named !== '' ? named : tenantId;
  if (wanted !== tenantId && !installation) return ['permission-denied', `this API key is of tenant ${tenantId}, not of ${wanted.slice(0, 64)}`];
  if (wanted !== tenantId && !(await tenants.exists(wanted))) return ['not-found', `there is no tenant ${wanted.slice(0, 64)}`];
  const over = await tenants.countCall(wanted);
  if (over) return [over.code, over.message];
  setCaller(request, {
    actor: `key:${id}`,
    tenantId: wanted,
    installation,
    role,
    devices: deviceFilter === null ? undefined : parseFilter(deviceFilter),
    filter: deviceFilter,
  });
  return undefined;
}

/** A browser sends Origin with every WebSocket and every request that changes something. */
export function isSameOrigin(headers: { origin?: string | undefined; host?: string | undefined }): boolean {
  if (headers.origin === undefined || headers.host === undefined || !URL.canParse(headers.origin)) return false;
  return new URL(headers.origin).host === headers.host;
}

/** Behind a proxy every request comes from loopback, so that there it tells nothing. */
const isFromThisMachine = (request: FastifyRequest, behindProxy: boolean): boolean => !behindProxy && isLoopback(request.socket.remoteAddress ?? '');

async function refuse(request: FastifyRequest, reply: FastifyReply, code: ErrorCode, message: string): Promise<void> {
  if (code === 'unauthenticated') reply.header('www-authenticate', 'Bearer');
  // The HTTP server no longer counts a socket that asked for an upgrade: nobody else would ever close it.
  if (isUpgrade(request)) reply.raw.once('finish', () => request.raw.socket.destroySoon());
  await reply.code(httpStatusOf(code)).headers({ 'content-type': PROBLEM_TYPE, 'cache-control': 'no-store' }).send(problemOf(code, message));
}

const isUpgrade = (request: FastifyRequest): boolean => request.headers.upgrade?.toLowerCase() === 'websocket';
