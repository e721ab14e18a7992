import { openSpan, type OpenSpan } from '@matfleet/tracing';
import type { FastifyInstance, FastifyRequest } from 'fastify';

/** What operators ask; the console's files, health and metrics are in no trace. */
const TRACED = /^\/(api|graphql)(\/|$)/;

/** One span a request, of its route and not of its URL, within the caller's trace where it names one. Jobs and messages that the request causes lie below it. */
export function traceRequests(fastify: FastifyInstance): void {
  const spans = new WeakMap<FastifyRequest, OpenSpan>();
  fastify.addHook('onRequest', (request, _reply, done) => {
    const route = request.routeOptions.url;
    if (route === undefined || !TRACED.test(route)) return done();
    const { method, headers } = request;
    const parent = typeof headers.traceparent === 'string' ? headers.traceparent : undefined;
    const attributes = { 'http.request.method': method, 'http.route': route };
    const span = openSpan(`${method} ${route}`, { kind: 'server', entry: true, parent, attributes });
    spans.set(request, span);
    span.run(done);
  });
  // A body arrives in the socket's own turn: what runs from here on is put below the span again.
  fastify.addHook('preValidation', (request, _reply, done) => {
    const span = spans.get(request);
    if (span) span.run(done);
    else done();
  });
  fastify.addHook('onResponse', async (request, reply) => {
    const span = spans.get(request);
    span?.set({ 'http.response.status_code': reply.statusCode });
    span?.end(reply.statusCode >= 500 ? String(reply.statusCode) : undefined);
  });
  fastify.addHook('onRequestAbort', async (request) => spans.get(request)?.end('aborted'));
}
