import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { isLoopback } from '../config.js';
import { type ErrorCode, httpStatusOf } from '../errors.js';
import type { ApiKeyService } from './api-key.service.js';
import { setCaller } from './caller.js';
import { SESSION_COOKIE, type SessionService } from './session.service.js';

/** Routes that anybody may use: the console's files, health, the API's own description, and the login. */
const OPEN = [/^\/healthz$/, /^\/readyz$/, /^\/api\/docs/, /^\/api\/openapi\.json$/, /^POST \/api\/v1\/session$/];
const GUARDED = /^\/(api|graphql|metrics)(\/|$)/;

export interface GateOptions {
  keys: ApiKeyService;
  sessions: SessionService;
  behindProxy: boolean;
}

/**
 * The one check of who asks, in front of REST, GraphQL and its WebSocket: a route under /api, /graphql or /metrics that is not named
 * as open is closed. It looks at the route that matched, not at the URL, so that no spelling of a URL goes round it.
 */
export function installGate(fastify: FastifyInstance, options: GateOptions): void {
  fastify.addHook('onRequest', async (request, reply) => {
    const route = request.routeOptions.url;
    if (route === undefined || isOpen(request.method, route)) return;
    if (route === '/metrics' && isFromThisMachine(request, options.behindProxy)) return;
    const refusal = await check(request, options);
    if (refusal) await refuse(request, reply, ...refusal);
  });
}

export const isOpen = (method: string, route: string): boolean =>
  !GUARDED.test(route) || OPEN.some((pattern) => pattern.test(route) || pattern.test(`${method} ${route}`));

async function check(request: FastifyRequest, { keys, sessions }: GateOptions): Promise<[ErrorCode, string] | undefined> {
  const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) {
    const id = await keys.verify(bearer);
    if (id === undefined) return ['unauthenticated', 'this API key is unknown or revoked'];
    setCaller(request, id);
    return undefined;
  }
  const cookie = request.cookies[SESSION_COOKIE];
  const id = cookie === undefined ? undefined : await sessions.verify(cookie);
  if (id === undefined) return ['unauthenticated', 'an API key is needed: Authorization: Bearer <key>, or a login at POST /api/v1/session'];
  setCaller(request, id);
  const isReading = (request.method === 'GET' || request.method === 'HEAD') && !isUpgrade(request);
  return isReading || isSameOrigin(request.headers)
    ? undefined
    : ['permission-denied', `a request with a cookie must come from this origin, not from ${request.headers.origin ?? 'an unknown one'}`];
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
  await reply.code(httpStatusOf(code)).header('cache-control', 'no-store').send({ code, message });
}

const isUpgrade = (request: FastifyRequest): boolean => request.headers.upgrade?.toLowerCase() === 'websocket';
