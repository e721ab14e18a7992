import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import fastifyCookie from '@fastify/cookie';
import fastifyStatic from '@fastify/static';
import type { LoggerService } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { AccessGuard } from './access/access.guard.js';
import { ApiKeyService } from './access/api-key.service.js';
import { installGate } from './access/gate.js';
import { TenantInterceptor } from './access/tenant.interceptor.js';
import { SESSION_COOKIE, SessionService } from './access/session.service.js';
import { AppModule } from './app.module.js';
import type { Config } from './config.js';
import { ErrorFilter } from './errors.js';
import { DeviceViews } from './fleet/device-views.js';
import { Metrics } from './telemetry.js';
import { TenantService } from './tenancy/tenant.service.js';
import { traceRequests } from './trace-requests.js';

const JSON_BYTES_MAX = 1 << 20;
/** Of apps/console, seen from src/ and from dist/ alike. */
const CONSOLE_DIR = fileURLToPath(new URL('../../console/dist', import.meta.url));

/** Builds the HTTP application, ready to listen: gate, REST with its description, GraphQL, console. */
export async function createApplication(config: Config, databaseUrl: string, logger: LoggerService): Promise<NestFastifyApplication> {
  const https = config.httpTls && { cert: await readFile(config.httpTls.certFile), key: await readFile(config.httpTls.keyFile) };
  const adapter = new FastifyAdapter({
    logger: false,
    trustProxy: config.httpBehindProxy,
    bodyLimit: JSON_BYTES_MAX,
    // At the end, calls that run are answered, also those that came on a connection that is open already.
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    requestTimeout: 0, // A chunk of gigabytes may take its time; what is small is bounded by its size.
    connectionTimeout: 0,
    ...(https && { https }),
  });
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.forRoot(config, databaseUrl), adapter, { logger, abortOnError: false });
  const fastify = app.getHttpAdapter().getInstance();

  await app.register(fastifyCookie);
  traceRequests(fastify);
  installGate(fastify, {
    keys: app.get(ApiKeyService, { strict: false }),
    sessions: app.get(SessionService, { strict: false }),
    tenants: app.get(TenantService, { strict: false }),
    behindProxy: config.httpBehindProxy,
  });
  installHeaders(app);
  observeRequests(app, app.get(Metrics, { strict: false }));
  fastify.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
  if (existsSync(CONSOLE_DIR)) await app.register(fastifyStatic, { root: CONSOLE_DIR, wildcard: false, decorateReply: false });

  app.useGlobalGuards(new AccessGuard(app.get(DeviceViews, { strict: false })));
  app.useGlobalInterceptors(new TenantInterceptor());
  app.useGlobalFilters(new ErrorFilter());
  describeApi(app);
  return app;
}

function describeApi(app: NestFastifyApplication): void {
  const description = new DocumentBuilder()
    .setTitle('Matfleet')
    .setDescription(
      'Runs one nested model across a fleet of unequal edge devices. Errors are problems (RFC 9457): `detail` names the thing and the numbers, `code` is for programs.',
    )
    .setVersion('1')
    .addBearerAuth({ type: 'http', description: 'The API key that the control plane made at its first start.' })
    .addCookieAuth(SESSION_COOKIE)
    .build();
  SwaggerModule.setup('api/docs', app, () => SwaggerModule.createDocument(app, description), {
    jsonDocumentUrl: 'api/openapi.json',
    yamlDocumentUrl: 'api/openapi.yaml',
  });
}

function installHeaders(app: NestFastifyApplication): void {
  const policy =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onRequest', async (request, reply) => {
      reply.headers({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer', 'x-frame-options': 'DENY' });
      if (!request.url.startsWith('/api/')) reply.header('content-security-policy', policy);
    });
}

function observeRequests(app: NestFastifyApplication, metrics: Metrics): void {
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onResponse', async (request, reply) => {
      const route = request.routeOptions.url ?? 'none';
      metrics.httpSeconds.observe({ method: request.method, route, status: String(reply.statusCode) }, reply.elapsedTime / 1_000);
    });
}
