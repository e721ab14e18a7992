import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, rename, writeFile } from 'node:fs/promises';
import { startTracing, type Tracing } from '@matfleet/tracing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { ApiKeyService } from './access/api-key.service.js';
import { createApplication } from './application.js';
import { ConfigError, type Config, parseConfig } from './config.js';
import { migrateFor, roleBeyondRowSecurity } from './database/application-role.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './database/embedded-postgres.js';
import { Endpoints } from './endpoints.js';
import { InferenceService } from './inference/inference.service.js';
import { createLogger, PinoNestLogger } from './telemetry.js';

/** For calls of operators that run. */
const HTTP_DRAIN_TIMEOUT_MS = 3_000;
/** For jobs, sessions and requests to end; the database then has what remains of fourteen seconds. */
const DRAIN_TIMEOUT_MS = 11_000;
const STOP_TIMEOUT_MS = 14_000;

let config: Config;
try {
  config = parseConfig(process.env);
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  console.error(error.message);
  process.exit(78); // EX_CONFIG
}

const pino = createLogger(config.logLevel);
const log = (message: string): void => pino.info({ context: 'main' }, message);

let app: NestFastifyApplication | undefined;
let postgres: EmbeddedPostgres | undefined;
let tracing: Tracing | undefined;
let stopping: Promise<never> | undefined;

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
  process.on(signal, () => {
    if (stopping) process.exit(1); // Asked twice.
    void stop(0, signal);
  });
process.on('uncaughtException', (error) => {
  pino.fatal({ err: error }, 'uncaught error');
  void stop(1, 'an uncaught error');
});

try {
  await start();
} catch (error) {
  pino.fatal({ err: error }, error instanceof Error ? error.message : 'start failed');
  await stop(1, 'a failed start');
}

async function start(): Promise<void> {
  const startedMs = performance.now();
  tracing = await startTracing({
    service: 'matfleet-control-plane',
    attributes: { 'service.instance.id': randomUUID() },
    onProblem: (message) => pino.warn({ context: 'tracing' }, message),
  });
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 });
  const databaseUrl = await prepareDatabase();

  app = await createApplication(config, databaseUrl, new PinoNestLogger(pino));
  if (stopping) return;
  const keys = app.get(ApiKeyService, { strict: false });
  await keys.ensureFirstKey();
  await app.listen(config.httpPort, config.httpHost);

  const endpoints = app.get(Endpoints, { strict: false });
  endpoints.httpUrl = httpUrl(app);
  log(
    `ready in ${Math.round(performance.now() - startedMs)} ms: operators at ${endpoints.httpUrl}, devices at ${endpoints.deviceUrl ?? 'no port'}, API key in ${keys.firstKeyFile}`,
  );
  if (config.readyFile)
    await writeReadyFile(config.readyFile, { httpUrl: endpoints.httpUrl, deviceUrl: endpoints.deviceUrl, apiKeyFile: keys.firstKeyFile });
}

/** Migrates as the owner; answers how the service itself connects. */
async function prepareDatabase(): Promise<string> {
  const { databaseUrl } = config;
  const { url, applicationUrl } =
    databaseUrl === undefined ? await openEmbedded() : { url: config.databaseMigrationUrl ?? databaseUrl, applicationUrl: databaseUrl };
  const applied = await migrateFor(applicationUrl, url);
  if (applied.length > 0) log(`applied migrations: ${applied.join(', ')}`);
  const beyond = await roleBeyondRowSecurity(applicationUrl);
  if (beyond !== null)
    pino.warn(
      `PostgreSQL's row-level security does not hold for the role ${beyond}: one tenant can be served, no second one. Name a plain role in DATABASE_URL and this one in DATABASE_MIGRATION_URL`,
    );
  return applicationUrl;
}

async function openEmbedded(): Promise<EmbeddedPostgres> {
  postgres = await startEmbeddedPostgres({
    dataDir: config.dataDir,
    log,
    onLost: (error) => {
      pino.fatal({ err: error }, error.message);
      void stop(1, 'a lost database');
    },
  });
  log(`embedded PostgreSQL ${postgres.adopted ? 'adopted' : 'started'} in ${postgres.directory} (pid ${postgres.pid})`);
  return postgres;
}

function httpUrl(application: NestFastifyApplication): string {
  const address = application.getHttpServer().address();
  const port = address !== null && typeof address === 'object' ? address.port : config.httpPort;
  const host = config.httpHost.includes(':') ? `[${config.httpHost}]` : config.httpHost;
  return `${config.httpTls ? 'https' : 'http'}://${host}:${port}`;
}

/** No new call is taken and those that run are answered, while everything behind them still works; then jobs and sessions end. */
async function close(application: NestFastifyApplication): Promise<void> {
  application.get(Endpoints, { strict: false }).draining = true;
  application.get(InferenceService, { strict: false }).stopFollowers();
  await endsWithin(application.getHttpAdapter().getInstance().close(), HTTP_DRAIN_TIMEOUT_MS);
  await application.close();
}

/** Lets requests, jobs and sessions end, then stops the database; whatever hangs is cut off. */
function stop(exitCode: number, reason: string): Promise<never> {
  return (stopping ??= (async () => {
    log(`stopping because of ${reason}`);
    setTimeout(() => process.exit(1), STOP_TIMEOUT_MS).unref();
    try {
      if (app && !(await endsWithin(close(app), DRAIN_TIMEOUT_MS))) {
        pino.error(`not drained within ${DRAIN_TIMEOUT_MS} ms`);
        exitCode ||= 1;
      }
      await Promise.all([tracing?.close(), postgres?.stop()]);
    } catch (error) {
      pino.error({ err: error }, 'stopping failed');
      exitCode ||= 1;
    }
    return process.exit(exitCode);
  })());
}

async function endsWithin(work: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  return Promise.race([work.then(() => true as const), late]).finally(() => clearTimeout(timer));
}

/** By rename, so that a reader sees all of it or nothing. */
async function writeReadyFile(path: string, content: object): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify(content));
  await chmod(`${path}.new`, 0o644);
  await rename(`${path}.new`, path);
}
