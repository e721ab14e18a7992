import 'reflect-metadata';
import { createHash, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { createDatabase, type TestDatabase } from '../../../test/support/database.js';
import { enrolledDevice } from '../../../test/support/enrolled-device.js';
import { manifestOnlyPackage } from '../../../test/support/manifest-only-package.js';
import { countStatements } from '../../../test/support/statement-counter.js';
import { ApiKeyService } from './access/api-key.service.js';
import { createApplication } from './application.js';
import { parseConfig } from './config.js';
import { migrate } from './database/migrate.js';
import { createLogger, PinoNestLogger } from './telemetry.js';

interface Answer {
  data?: Record<string, unknown> | null;
  errors?: { message: string; extensions?: { code?: string } }[];
  message?: string;
}

describe('GraphQL', () => {
  let database: TestDatabase;
  let statements: Awaited<ReturnType<typeof countStatements>>;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey] = ['', ''];

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    statements = await countStatements(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-graphql-'));
    // Loops that ask the database by themselves are slow enough not to be counted.
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_HEARTBEAT_MS: '60000',
      MATFLEET_LEASE_MS: '180000',
    });
    app = await createApplication(config, statements.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
  });
  afterAll(async () => {
    await app?.close();
    await statements?.stop();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const post = async (body: object): Promise<{ status: number; answer: Answer }> => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, answer: (await response.json()) as Answer };
  };
  const refusedWith = async (query: string): Promise<string> => {
    const { answer } = await post({ query });
    expect(answer.data ?? null).toBeNull();
    return answer.errors?.[0]?.message ?? '';
  };
  const client = () =>
    createClient({
      url: `${url.replace('http', 'ws')}/graphql`,
      retryAttempts: 0,
      webSocketImpl: class extends WebSocket {
        constructor(address: string, protocols: string | string[]) {
          super(address, protocols, { headers: { authorization: `Bearer ${apiKey}` } });
        }
      },
    });

  it('refuses what is too deep, too costly or has too many aliases, by the numbers', async () => {
    const all = 'devices { id name labels { key value } capabilities { cores executionProviders } latency { ttftMs { p50 p95 } } }';
    expect(await refusedWith(`{ ${Array.from({ length: 9 }, (_, i) => `d${i}: ${all}`).join(' ')} }`)).toMatch(
      /^the query may cost \d+ fields, at most 250000 are answered$/,
    );
    const many = Array.from({ length: 31 }, (_, i) => `a${i}: __typename`).join(' ');
    expect(await refusedWith(`{ ${many} }`)).toBe('the query has 31 aliases, at most 30 are taken');
    const deep = `{ __schema { types { fields { type ${'{ ofType '.repeat(8)}{ name } ${'}'.repeat(8)} } } } }`;
    expect((await post({ query: deep })).answer.errors).toBeDefined();
  });

  it('takes what the console asks for', async () => {
    const device = /const device = `([^`]*)`/.exec(await readFile(new URL('../../console/src/documents.ts', import.meta.url), 'utf8'))![1]!;
    expect((await post({ query: `query { devices { ${device} } }` })).answer).toEqual({ data: { devices: [] } });
  });

  it('holds the same limits for subscriptions', async () => {
    const connection = client();
    const many = Array.from({ length: 31 }, (_, i) => `a${i}: name`).join(' ');
    await expect(connection.iterate({ query: `subscription { deviceChanged { ${many} } }` }).next()).rejects.toMatchObject([
      { message: 'the query has 31 aliases, at most 30 are taken' },
    ]);
    await connection.dispose();
  });

  it('refuses a query of more bytes than any needs', async () => {
    expect((await post({ query: `{ devices { id } } # ${'x'.repeat(70_000)}` })).status).toBe(413);
  });

  it('answers a query that it was sent before by its hash alone, and asks for one that it was not', async () => {
    const query = `query Known { devices { id } } # ${randomUUID()}`;
    const extensions = { persistedQuery: { version: 1, sha256Hash: createHash('sha256').update(query).digest('hex') } };
    expect((await post({ extensions })).answer.errors?.[0]?.message).toBe('PersistedQueryNotFound');
    expect((await post({ query, extensions })).answer).toEqual({ data: { devices: [] } });
    expect((await post({ extensions })).answer).toEqual({ data: { devices: [] } });
    const other = { persistedQuery: { version: 1, sha256Hash: 'ab'.repeat(32) } };
    expect((await post({ query, extensions: other })).answer.errors?.[0]?.message).toBe('provided sha does not match query');
  });

  it('asks the database as often for twenty rows as for two', async () => {
    const rest = (method: string, path: string, body: object | Uint8Array): Promise<Response> =>
      fetch(`${url}/api/v1/${path}`, {
        method,
        headers: { authorization: `Bearer ${apiKey}`, 'content-type': body instanceof Uint8Array ? 'application/octet-stream' : 'application/json' },
        body: body instanceof Uint8Array ? new Uint8Array(body) : JSON.stringify(body),
      });
    const queries = {
      devices: '{ devices { id name standing labels { key value } desired { sliceId } observed { sliceId } latency { samples } } }',
      models: '{ models { id name slices { id quality { value } tasks { task } } } }',
      enrolments: '{ enrolments { id name labels { key } } }',
      inferences: '{ inferences { id state attempts { ordinal deviceName } } }',
      auditRecords: '{ auditRecords(limit: 100) { sequence actor action before after } }',
    };
    let made = 0;
    const fill = async (upTo: number): Promise<void> => {
      for (; made < upTo; made++) {
        const id = await enrolledDevice(app, `row-${made}`);
        await rest('PATCH', `devices/${id}/labels`, { site: `s${made}` });
        await rest('POST', 'models', manifestOnlyPackage(`model-${made}`, made + 1).manifest);
        await rest('POST', 'enrolments', { publicKeyHash: createHash('sha256').update(`key-${made}`).digest('hex'), name: `key-${made}` });
        await rest('POST', 'inferences', { prompt: 'hello', deadlineMs: 1_000 });
      }
      // Inferences that nobody can answer end by their deadline.
      await new Promise((resolve) => setTimeout(resolve, 2_500));
    };
    const costs = async (): Promise<Record<string, number>> => {
      const found: Record<string, number> = {};
      for (const [name, query] of Object.entries(queries)) {
        // The least of several: a loop of the control plane may ask in between.
        const tries: number[] = [];
        for (let turn = 0; turn < 5; turn++) {
          const before = statements.count();
          const { answer } = await post({ query });
          expect(answer.errors).toBeUndefined();
          expect((answer.data![name] as unknown[]).length).toBeGreaterThanOrEqual(made);
          tries.push(statements.count() - before);
        }
        found[name] = Math.min(...tries);
      }
      return found;
    };
    await fill(2);
    const two = await costs();
    await fill(20);
    expect(await costs()).toEqual(two);
    // A statement in a tenant's scope is four: begin, whose, the statement, commit.
    expect(Math.max(...Object.values(two))).toBeLessThan(20);
  }, 90_000);
});
