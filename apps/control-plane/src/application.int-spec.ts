import 'reflect-metadata';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { enrolledDevice } from '../../../test/support/enrolled-device.js';
import { createDatabase, type TestDatabase } from '../../../test/support/database.js';
import { sha256, manifestOnlyPackage } from '../../../test/support/manifest-only-package.js';
import { ApiKeyService } from './access/api-key.service.js';
import { createApplication } from './application.js';
import { parseConfig } from './config.js';
import { migrate } from './database/migrate.js';
import { createLogger, PinoNestLogger } from './telemetry.js';

describe('the HTTP application', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let url: string;
  let apiKey: string;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-app-'));
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_CHUNK_BYTES_MAX: '100000',
    });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const call = (
    method: string,
    path: string,
    { body, headers = {}, key = apiKey }: { body?: RequestInit['body']; headers?: Record<string, string>; key?: string | undefined } = {},
  ): Promise<Response> =>
    fetch(`${url}${path}`, { method, headers: { ...(key && { authorization: `Bearer ${key}` }), ...headers }, ...(body !== undefined && { body }) });
  const sendBytes = (method: string, path: string, bytes: Buffer) =>
    call(method, path, { body: new Uint8Array(bytes), headers: { 'content-type': 'application/octet-stream' } });
  const sendJson = (path: string, value: object, headers: Record<string, string> = {}, key: string = apiKey) =>
    call('POST', path, { body: JSON.stringify(value), headers: { 'content-type': 'application/json', ...headers }, key });
  const login = async (): Promise<string> => {
    const response = await sendJson('/api/v1/session', { apiKey }, {}, '');
    expect(response.status).toBe(204);
    return response.headers.get('set-cookie')!;
  };
  const publish = async (name: string, seed: number) => {
    const model = manifestOnlyPackage(name, seed);
    await sendBytes('POST', '/api/v1/models', model.manifest);
    for (const [id, bytes] of model.chunks) await sendBytes('PUT', `/api/v1/chunks/${id}`, bytes);
    expect((await call('POST', `/api/v1/models/${model.id}/publish`)).status).toBe(200);
    return model;
  };

  describe('access', () => {
    it('keeps the first key in a file that only its owner reads, and only its hash in the database', async () => {
      expect((await stat(join(dataDir, 'admin-api-key'))).mode & 0o077).toBe(0);
      const before = apiKey;
      await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
      expect((await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim()).toBe(before);
    });

    it.each([
      ['GET', '/api/v1/models'],
      ['GET', '/api/v1/devices'],
      ['POST', '/api/v1/rollouts'],
      ['POST', '/api/v1/join-tokens'],
      ['GET', '/%61pi/v1/models'],
      ['POST', '/graphql'],
      ['GET', '/graphql?query={models{id}}'],
    ])('refuses %s %s without a key, and with a wrong one', async (method, path) => {
      for (const key of ['', 'mfk_wrong']) {
        const response = await call(method, path, { key });
        expect(response.status).toBe(401);
        expect(await response.json()).toMatchObject({ code: 'unauthenticated' });
      }
    });

    it('answers health, readiness and the description of the API to anybody', async () => {
      expect((await call('GET', '/healthz', { key: '' })).status).toBe(200);
      const ready = await call('GET', '/readyz', { key: '' });
      expect(await ready.json()).toMatchObject({ ready: true, checks: { database: 'ok', queue: 'ok', 'device gateway': 'ok' } });
      const description = (await (await call('GET', '/api/openapi.json', { key: '' })).json()) as { paths: object };
      expect(Object.keys(description.paths)).toEqual(
        expect.arrayContaining(['/api/v1/models', '/api/v1/chunks/{id}', '/api/v1/rollouts', '/api/v1/session']),
      );
    });

    it('trades the key for a cookie that scripts cannot read, and ends it', async () => {
      const setCookie = await login();
      expect(setCookie).toMatch(/^matfleet_session=[\w-]{43};/);
      for (const part of ['HttpOnly', 'SameSite=Strict', 'Path=/', 'Max-Age=43200']) expect(setCookie).toContain(part);
      const cookie = setCookie.split(';')[0]!;
      expect((await call('GET', '/api/v1/models', { key: '', headers: { cookie } })).status).toBe(200);
      expect((await call('DELETE', '/api/v1/session', { key: '', headers: { cookie, origin: url } })).status).toBe(204);
      expect((await call('GET', '/api/v1/models', { key: '', headers: { cookie } })).status).toBe(401);
    });

    it('takes a change with a cookie only from its own origin', async () => {
      const cookie = (await login()).split(';')[0]!;
      const query = { query: '{ models { id } }' };
      expect((await sendJson('/graphql', query, { cookie, origin: url }, '')).status).toBe(200);
      expect((await sendJson('/graphql', query, { cookie, origin: 'https://evil.example' }, '')).status).toBe(403);
      expect((await sendJson('/graphql', query, { cookie }, '')).status).toBe(403);
    });

    it('closes the login after ten wrong keys', async () => {
      for (let i = 0; i < 10; i++) expect((await sendJson('/api/v1/session', { apiKey: `mfk_wrong${i}` }, {}, '')).status).toBe(401);
      const refused = await sendJson('/api/v1/session', { apiKey }, {}, '');
      expect(refused.status).toBe(429);
      expect(await refused.json()).toMatchObject({ code: 'resource-exhausted' });
    });
  });

  describe('labels and filters', () => {
    const patchLabels = (id: string, patch: object) =>
      call('PATCH', `/api/v1/devices/${id}/labels`, { body: JSON.stringify(patch), headers: { 'content-type': 'application/json' } });
    const graphql = async (query: string) =>
      (await (await sendJson('/graphql', { query })).json()) as { data: Record<string, unknown>; errors?: unknown };

    it('change by a merge patch, and REST and GraphQL find the device by them', async () => {
      const id = await enrolledDevice(app, 'kiosk');
      await enrolledDevice(app, 'other');
      expect((await patchLabels(id, { site: 'berlin', ring: 'canary' })).status).toBe(200);
      expect(await (await patchLabels(id, { site: 'rome', ring: null })).json()).toMatchObject({ name: 'kiosk', labels: { site: 'rome' } });

      const filter = new URLSearchParams({ filter: 'labels.site == "rome" && presence == "offline"' });
      expect(await (await call('GET', `/api/v1/devices?${filter}`)).json()).toMatchObject([{ id }]);
      expect((await graphql('{ devices(filter: "labels.site == \\"rome\\"") { id labels { key value } } }')).data).toEqual({
        devices: [{ id, labels: [{ key: 'site', value: 'rome' }] }],
      });
      const set = `mutation { setDeviceLabels(id: "${id}", labels: [{ key: "site", value: null }, { key: "floor", value: "2" }]) { labels { key value } } }`;
      expect((await graphql(set)).data).toEqual({ setDeviceLabels: { labels: [{ key: 'floor', value: '2' }] } });
    });

    it('are refused with the place of what is wrong', async () => {
      const wrong = await call('GET', `/api/v1/devices?${new URLSearchParams({ filter: 'cores >= 4 && sight == "x"' })}`);
      const detail = 'filter, column 15: Unknown variable: sight';
      expect(wrong.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
      expect([wrong.status, await wrong.json()]).toEqual([
        400,
        {
          ...{ type: 'urn:matfleet:problem:invalid-argument', title: 'The request is not valid', status: 400 },
          ...{ detail, code: 'invalid-argument', message: detail },
        },
      ]);
      expect((await graphql('{ devices(filter: "cores") { id } }')).errors).toMatchObject([{ message: expect.stringContaining('filter, column 1') }]);
      const key = await patchLabels('no-device', { 'Bad Key': 'x' });
      expect([key.status, ((await key.json()) as { message: string }).message]).toEqual([400, expect.stringContaining('a key has 1 to 63 of')]);
      expect((await patchLabels('no-device', { site: 'x' })).status).toBe(404);
      const [device] = (await (await call('GET', '/api/v1/devices')).json()) as [{ id: string }];
      const many = await patchLabels(device.id, Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`k${i}`, 'v'])));
      expect([many.status, await many.json()]).toMatchObject([400, { message: 'the device would have more than 32 labels' }]);
    });
  });

  describe('catalog', () => {
    it('publishes a package once its chunks are here, and names those that are not', async () => {
      const model = manifestOnlyPackage('tiny', 1);
      const registered = await sendBytes('POST', '/api/v1/models', model.manifest);
      expect(registered.status).toBe(201);
      expect(await registered.json()).toEqual({ id: model.id, name: 'tiny', missingChunks: [...model.chunks.keys()], published: false });

      const early = await call('POST', `/api/v1/models/${model.id}/publish`);
      expect(early.status).toBe(409);
      expect(await early.json()).toMatchObject({ code: 'failed-precondition', message: expect.stringContaining('lacks 3 of 3 chunks') });

      for (const [id, bytes] of model.chunks) expect((await sendBytes('PUT', `/api/v1/chunks/${id}`, bytes)).status).toBe(204);
      const published = await call('POST', `/api/v1/models/${model.id}/publish`);
      expect(await published.json()).toMatchObject({
        id: model.id,
        name: 'tiny',
        totalBytes: 15_003,
        slices: [{ id: 'full', bytes: 15_003, quality: { value: 0.9 } }],
      });
      expect(await (await sendBytes('POST', '/api/v1/models', model.manifest)).json()).toMatchObject({ missingChunks: [], published: true });
    });

    it('keeps nothing of a chunk whose bytes are wrong, too many or too few', async () => {
      const model = manifestOnlyPackage('tiny', 2);
      await sendBytes('POST', '/api/v1/models', model.manifest);
      const [id, bytes] = [...model.chunks][0]!;
      const damaged = Buffer.from(bytes);
      damaged[100]! ^= 1;
      for (const [wrong, status] of [
        [damaged, 400],
        [bytes.subarray(1), 400],
        [Buffer.concat([bytes, bytes]), 413],
      ] as const)
        expect((await sendBytes('PUT', `/api/v1/chunks/${id}`, wrong)).status).toBe(status);
      expect((await call('GET', `/api/v1/chunks/${id}`)).status).toBe(404);
      expect(await readdir(join(dataDir, 'chunks', '.incoming'))).toEqual([]);
    });

    it('takes no chunk that no manifest names, and no manifest that is none', async () => {
      const stray = randomBytes(100);
      expect((await sendBytes('PUT', `/api/v1/chunks/${sha256(stray)}`, stray)).status).toBe(409);
      expect((await sendBytes('PUT', '/api/v1/chunks/..%2f..%2fetc', stray)).status).toBe(400);
      const refused = await sendBytes('POST', '/api/v1/models', Buffer.from('{"format":"matfleet-package-1","name":"BAD NAME"}'));
      expect(refused.status).toBe(400);
      expect(((await refused.json()) as { message: string }).message).toContain('name:');
      expect((await sendJson('/api/v1/models', {})).status).toBe(415);
    });

    it('resumes a download from any byte', async () => {
      const model = await publish('tiny', 3);
      const [id, bytes] = [...model.chunks][0]!;
      const whole = await call('GET', `/api/v1/chunks/${id}`);
      expect(whole.headers.get('etag')).toBe(`"${id}"`);
      expect(Buffer.from(await whole.arrayBuffer()).equals(bytes)).toBe(true);
      const rest = await call('GET', `/api/v1/chunks/${id}`, { headers: { range: 'bytes=4000-', 'if-range': `"${id}"` } });
      expect([rest.status, rest.headers.get('content-range')]).toEqual([206, 'bytes 4000-4999/5000']);
      expect(Buffer.from(await rest.arrayBuffer()).equals(bytes.subarray(4_000))).toBe(true);
      const beyond = await call('GET', `/api/v1/chunks/${id}`, { headers: { range: 'bytes=5000-' } });
      expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, 'bytes */5000']);
      expect((await call('GET', `/api/v1/chunks/${id}`, { headers: { 'if-none-match': `"${id}"` } })).status).toBe(304);
    });
  });

  describe('GraphQL and rollouts', () => {
    it('answers the same models as REST, and refuses a query deeper than any of ours', async () => {
      const model = await publish('tiny', 4);
      const answer = (await (await sendJson('/graphql', { query: '{ models { id slices { id bytes } } }' })).json()) as {
        data: { models: { id: string }[] };
      };
      expect(answer.data.models.map(({ id }) => id)).toContain(model.id);
      const deep = `{ __schema { types ${'{ ofType '.repeat(10)} { name } ${'}'.repeat(10)} } }`;
      expect((await (await sendJson('/graphql', { query: deep })).json()) as object).toHaveProperty('errors');
    });

    it('gives a refusal its code in GraphQL as in REST', async () => {
      const rest = await sendJson('/api/v1/rollouts', { modelVersionId: 'none' });
      expect([rest.status, ((await rest.json()) as { code: string }).code]).toEqual([404, 'not-found']);
      const graphql = (await (await sendJson('/graphql', { query: 'mutation { startRollout(modelVersionId: "none") { id } }' })).json()) as {
        errors: { extensions: { code: string } }[];
      };
      expect(graphql.errors[0]!.extensions.code).toBe('not-found');
    });

    it('tells a subscriber of a rollout, over a WebSocket that needs the key', async () => {
      const model = await publish('tiny', 5);
      const connect = (authorization?: string) =>
        createClient({
          url: `${url.replace('http', 'ws')}/graphql`,
          retryAttempts: 0,
          webSocketImpl: class extends WebSocket {
            constructor(address: string, protocols: string | string[]) {
              super(address, protocols, authorization ? { headers: { authorization } } : {});
            }
          },
        });
      const stranger = connect().iterate({ query: 'subscription { rolloutChanged { id } }' });
      await expect(stranger.next()).rejects.toBeDefined();

      const client = connect(`Bearer ${apiKey}`);
      const rollouts = client.iterate<{ rolloutChanged: { id: string; state: string } }>({ query: 'subscription { rolloutChanged { id state } }' });
      const next = rollouts.next();
      // The subscription stands a moment after the socket does; each rollout is news of its own.
      const started: string[] = [];
      const timer = setInterval(
        () =>
          void sendJson('/api/v1/rollouts', { modelVersionId: model.id }).then(async (r) => started.push(((await r.json()) as { id: string }).id)),
        200,
      );
      const { value } = await next.finally(() => clearInterval(timer));
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(started).toContain(value!.data!.rolloutChanged.id);
      await client.dispose();
    });
  });
});
