import 'reflect-metadata';
import { webcrypto, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChannelCredentials, type ServiceError } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { verifyAudit } from '@matfleet/history';
import { ArtifactServiceClient, DeviceServiceClient, parseJoinToken, Phase, type EnrollResponse } from '@matfleet/protocol';
import { FakeDevice } from '@matfleet/protocol/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { manifestOnlyPackage } from '../../../../test/support/manifest-only-package.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { Endpoints } from '../endpoints.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Two organisations on one installation, from outside: what one has, the other must not even suspect. */
describe('two tenants', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, admin, target, caPem] = ['', '', '', ''];
  const keys = new Map<string, string>();
  const open: FakeDevice[] = [];
  const model = manifestOnlyPackage('shared-model', 7);

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-tenancy-'));
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0', MATFLEET_HEARTBEAT_MS: '300', MATFLEET_LEASE_MS: '60000' });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    admin = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    target = new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host;
    caPem = await readFile(join(dataDir, 'ca', 'certificate.pem'), 'utf8');
    for (const id of ['north', 'south']) {
      expect((await as(admin, 'POST', '/api/v1/tenants', { id })).status).toBe(201);
      const made = await as(admin, 'POST', '/api/v1/api-keys', { name: id, role: 'admin' }, { 'x-matfleet-tenant': id });
      keys.set(id, (made.body as { secret: string }).secret);
    }
  });
  afterEach(() => {
    for (const device of open.splice(0)) device.close();
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function as(key: string, method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
    const isBytes = body instanceof Buffer;
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: (text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text) as never };
  }
  const call = <T>(tenant: string, method: string, path: string, body?: unknown) =>
    as(keys.get(tenant)!, method, path, body) as Promise<{ status: number; body: T }>;
  const graphql = async (tenant: string, query: string) =>
    (await call<{ data: Record<string, never> | null; errors?: { extensions: { code: string } }[] }>(tenant, 'POST', '/graphql', { query })).body;

  async function publish(tenant: string): Promise<void> {
    const { body } = await call<{ missingChunks: string[] }>(tenant, 'POST', '/api/v1/models', model.manifest);
    for (const id of body.missingChunks) expect((await call(tenant, 'PUT', `/api/v1/chunks/${id}`, model.chunks.get(id)!)).status).toBe(204);
    expect((await call(tenant, 'POST', `/api/v1/models/${model.id}/publish`)).status).toBe(200);
  }

  async function enrol(tenant: string, name: string, pair?: webcrypto.CryptoKeyPair) {
    const { body } = await call<{ token: string }>(tenant, 'POST', '/api/v1/join-tokens', {});
    const keyPair = pair ?? ((await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair);
    const csr = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=x', keys: keyPair as never, signingAlgorithm: algorithm });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keyPair.privateKey)).toString('base64');
    const client = new DeviceServiceClient(target, ChannelCredentials.createSsl(Buffer.from(caPem)));
    const answer = await new Promise<EnrollResponse>((resolve, reject) =>
      client.enroll({ token: parseJoinToken(body.token).secret, csrPem: csr.toString('pem'), deviceName: name }, (error, value) =>
        error ? reject(error) : resolve(value),
      ),
    ).finally(() => client.close());
    return { ...answer, keyPair, keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n` };
  }

  it('may have devices and models of the same name, and see only their own', async () => {
    await publish('north');
    // South knows the manifest, and with it every hash: that gives it no byte.
    const registered = await call<{ missingChunks: string[]; published: boolean }>('south', 'POST', '/api/v1/models', model.manifest);
    expect(registered.body).toMatchObject({ missingChunks: [...model.chunks.keys()], published: false });
    const [chunk] = [...model.chunks.keys()];
    expect((await call('south', 'GET', `/api/v1/chunks/${chunk}`)).status).toBe(404);
    expect((await call('north', 'GET', `/api/v1/chunks/${chunk}`)).status).toBe(200);
    expect((await call('south', 'POST', `/api/v1/models/${model.id}/publish`)).status).toBe(409);
    await publish('south');
    expect((await call('south', 'GET', `/api/v1/chunks/${chunk}`)).status).toBe(200);

    const ids = { north: await enrolledDevice(app, 'kiosk', 'north'), south: await enrolledDevice(app, 'kiosk', 'south') };
    for (const [tenant, id, other] of [
      ['north', ids.north, ids.south],
      ['south', ids.south, ids.north],
    ] as const) {
      expect((await call<{ id: string }[]>(tenant, 'GET', '/api/v1/devices')).body).toMatchObject([{ id, name: 'kiosk' }]);
      expect((await call<{ id: string }[]>(tenant, 'GET', `/api/v1/devices?filter=${encodeURIComponent('true')}`)).body).toHaveLength(1);
      expect((await graphql(tenant, '{ devices { id } }')).data).toEqual({ devices: [{ id }] });
      expect((await graphql(tenant, `{ device(id: "${other}") { id } }`)).errors?.[0]?.extensions.code).toBe('not-found');
    }
  });

  it('cannot read, change or use what is the other’s, by any route, also when they know its id', async () => {
    const device = await enrolledDevice(app, 'south-only', 'south');
    const { body: token } = await call<{ id: string }>('south', 'POST', '/api/v1/join-tokens', {});
    const { body: enrolment } = await call<{ id: string }>('south', 'POST', '/api/v1/enrolments', { publicKeyHash: '0'.repeat(64) });
    const { body: inference } = await call<{ id: string }>('south', 'POST', '/api/v1/inferences', { prompt: 'secret of the south', deadlineMs: 500 });
    for (const [method, path, body] of [
      ['GET', `/api/v1/devices/${device}`],
      ['PATCH', `/api/v1/devices/${device}/labels`, { site: 'north' }],
      ['GET', `/api/v1/devices/${device}/assignments`],
      ['POST', `/api/v1/devices/${device}/evaluate`],
      ['POST', `/api/v1/devices/${device}/revoke`, { reason: 'x' }],
      ['POST', `/api/v1/devices/${device}/release`],
      ['POST', `/api/v1/devices/${device}/decommission`, { reason: 'x' }],
      ['DELETE', `/api/v1/devices/${device}`],
      ['GET', `/api/v1/devices/${device}/keys`],
      ['POST', `/api/v1/devices/${device}/keys`, { publicKeyHash: '1'.repeat(64) }],
      ['DELETE', `/api/v1/join-tokens/${token.id}`],
      ['POST', `/api/v1/enrolments/${enrolment.id}/accept`],
      ['POST', `/api/v1/enrolments/${enrolment.id}/reject`],
      ['GET', `/api/v1/inferences/${inference.id}`],
    ] as const)
      expect([method, path, (await call('north', method, path, body)).status]).toEqual([method, path, 404]);
    // A stream says it in an event.
    expect((await call('north', 'GET', `/api/v1/inferences/${inference.id}/events`)).body).toMatch(/^\s*event: error\s[^{]*$/);
    // One of a key that is somebody's already; whose, it does not tell.
    expect((await call('north', 'POST', '/api/v1/enrolments', { publicKeyHash: '0'.repeat(64) })).status).toBe(409);
    for (const path of ['join-tokens', 'enrolments', 'inferences', 'tombstones', 'audit?subject=device:' + device])
      expect(JSON.stringify((await call('north', 'GET', `/api/v1/${path}`)).body)).not.toMatch(/south/);
    expect((await call<{ id: string }>('south', 'GET', `/api/v1/devices/${device}`)).body).toMatchObject({ standing: 'accepted', labels: {} });
  });

  it('have audit logs of their own, each a whole chain', async () => {
    const chains = await Promise.all(
      ['north', 'south'].map(
        async (tenant) => (await call<{ sequence: number; action: string }[]>(tenant, 'GET', '/api/v1/audit?after=0&limit=1000')).body,
      ),
    );
    for (const [i, records] of chains.entries()) {
      expect(records[0]).toMatchObject({ sequence: 1, action: 'tenant.created', subject: `tenant:${['north', 'south'][i]}` });
      expect(records.map(({ sequence }) => sequence)).toEqual(records.map((_, n) => n + 1));
      expect(verifyAudit(records as never)).toMatchObject({ ok: true });
    }
  });

  it('enrol devices of their own: the certificate names the tenant, and a key that is one’s device is refused to the other', async () => {
    const enrolled = await enrol('north', 'gate');
    expect(new X509Certificate(enrolled.certificatePem).subjectAltName).toBe('URI:urn:matfleet:tenant:north');
    await expect(enrol('south', 'gate', enrolled.keyPair)).rejects.toThrow('is known already, and not where this join token is from');
    expect((await enrol('north', 'gate', enrolled.keyPair)).deviceId).toBe(enrolled.deviceId);
  });

  it('serve models to their own devices alone', async () => {
    const own = manifestOnlyPackage('north-only', 8);
    await call('north', 'POST', '/api/v1/models', own.manifest);
    for (const [id, bytes] of own.chunks) await call('north', 'PUT', `/api/v1/chunks/${id}`, bytes);
    const [chunkId] = [...own.chunks.keys()];
    const got: unknown[] = [];
    for (const tenant of ['north', 'south']) {
      const { keyPem, certificatePem } = await enrol(tenant, 'reader');
      const client = new ArtifactServiceClient(
        target,
        ChannelCredentials.createSsl(Buffer.from(caPem), Buffer.from(keyPem), Buffer.from(certificatePem)),
      );
      const manifest = await new Promise<number>((resolve) =>
        client.getManifest({ modelVersionId: own.id }, (error: ServiceError | null) => resolve(error?.code ?? 0)),
      );
      const chunk = await new Promise<number>((resolve) => {
        const stream = client.fetchChunk({ chunkId: chunkId!, offset: 0n, length: 0n });
        stream
          .on('data', () => {})
          .once('error', (error) => resolve((error as ServiceError).code))
          .once('end', () => resolve(0));
      });
      got.push([tenant, manifest, chunk]);
      client.close();
    }
    expect(got).toEqual([
      ['north', 0, 0],
      ['south', 5, 5],
    ]);
  });

  it('hear nothing of each other: events and answers stay where they belong', async () => {
    const { deviceId, keyPem, certificatePem } = await enrol('north', 'runner');
    const heard: Record<string, string[]> = { north: [], south: [] };
    const clients = ['north', 'south'].map((tenant) => {
      const client = createClient({
        url: `${url.replace('http', 'ws')}/graphql`,
        retryAttempts: 0,
        webSocketImpl: class extends WebSocket {
          constructor(address: string, protocols: string | string[]) {
            super(address, protocols, { headers: { authorization: `Bearer ${keys.get(tenant)!}` } });
          }
        },
      });
      const next = ({ data }: { data?: { deviceChanged?: { id: string } } | null }) => void heard[tenant]!.push(data!.deviceChanged!.id);
      client.subscribe({ query: 'subscription { deviceChanged { id } }' }, { next, error: () => {}, complete: () => {} } as never);
      return client;
    });
    const device = new FakeDevice({ target, caPem, certificate: { keyPem, certificatePem } });
    open.push(device);
    device.open({
      storedGeneration: 0n,
      capabilities: { architecture: 'x64', cores: 2, modelMemoryBytes: 1n << 30n, memoryBandwidthBytesPerSecond: 10_000_000_000n },
    });
    await device.next('welcome');
    const desired = await device.next('desired');
    const observed = { generation: desired.generation, modelVersionId: desired.modelVersionId, sliceId: desired.sliceId };
    const report = {
      sequence: 1n,
      generation: desired.generation,
      phase: Phase.PHASE_ACTIVE,
      observed,
      fetchedBytes: 1n,
      totalBytes: 1n,
      error: '',
      activation: undefined,
    };
    device.send({ message: { $case: 'report', value: report } });
    await device.next('reportAck');
    const beat = setInterval(() => device.heartbeat(), 100);
    await device.next('heartbeatAck');

    const ask = (tenant: string) => call<{ id: string }>(tenant, 'POST', '/api/v1/inferences', { prompt: 'hi', deadlineMs: 1_500 });
    const asked = [await ask('south'), await ask('north')];
    const { attemptId } = await device.next('startInference');
    await expect(device.next('startInference', 1_800)).rejects.toThrow();
    const [south, north] = await Promise.all(
      asked.map(
        async ({ body }, i) =>
          (await call<{ error: string; attempts: { deviceId: string }[] }>(['south', 'north'][i]!, 'GET', `/api/v1/inferences/${body.id}`)).body,
      ),
    );
    expect(north!.attempts.map((attempt) => attempt.deviceId)).toEqual([deviceId]);
    expect(attemptId).not.toBe('');
    expect(south!.attempts).toEqual([]);
    expect(south!.error).not.toContain('runner');
    expect(heard['north']).toContain(deviceId);
    expect(heard['south']!.filter((id) => id === deviceId)).toEqual([]);
    clearInterval(beat);
    await Promise.all(clients.map((client) => client.dispose()));
  });

  it('have no more than the installation lets them have, and are told the numbers', async () => {
    const limit = (quotas: object) => as(admin, 'PATCH', '/api/v1/tenants/south', quotas);
    const devices = (await call<unknown[]>('south', 'GET', '/api/v1/devices')).body.length;
    expect((await limit({ devicesMax: devices + 1, modelBytesMax: 1, queuedInferencesMax: 0 })).body).toMatchObject({
      id: 'south',
      devicesMax: devices + 1,
    });
    expect((await call('south', 'PATCH', '/api/v1/tenants/south', { devicesMax: null })).status).toBe(403);
    await enrol('south', 'fits');
    await expect(enrol('south', 'one too many')).rejects.toThrow(
      `tenant south may have ${devices + 1} devices at most, and would have ${devices + 2}`,
    );
    expect(await call('south', 'POST', '/api/v1/models', manifestOnlyPackage('too-large', 9).manifest)).toMatchObject({
      ...{ status: 429, body: { code: 'resource-exhausted', message: expect.stringContaining('may have 1 bytes of models at most') } },
    });
    const submit = () => call<{ message: string }>('south', 'POST', '/api/v1/inferences', { prompt: 'hi', deadlineMs: 500 });
    const refused = await submit();
    expect([refused.status, refused.body.message]).toEqual([
      429,
      expect.stringContaining('may have 0 inferences that wait or run at most, and would have 1'),
    ]);
    await limit({ queuedInferencesMax: 100 });
    expect((await submit()).status).toBe(202);

    await limit({ apiCallsPerMinuteMax: 3 });
    const statuses = [];
    for (let i = 0; i < 5; i++) statuses.push((await call('south', 'GET', '/api/v1/models')).status);
    expect(statuses).toEqual([200, 200, 200, 429, 429]);
    expect((await call('north', 'GET', '/api/v1/models')).status).toBe(200);
    expect((await limit({ devicesMax: null, modelBytesMax: null, queuedInferencesMax: null, apiCallsPerMinuteMax: null })).status).toBe(200);
    expect((await call('south', 'GET', '/api/v1/models')).status).toBe(200);
    await enrol('south', 'fits now');
  });

  it('are made and entered by keys of the installation alone', async () => {
    expect((await call('north', 'GET', '/api/v1/tenants')).status).toBe(403);
    expect((await call('north', 'POST', '/api/v1/tenants', { id: 'west' })).status).toBe(403);
    expect((await graphql('north', 'mutation { createTenant(id: "west") { id } }')).errors?.[0]?.extensions.code).toBe('permission-denied');
    expect((await call('north', 'GET', '/metrics')).status).toBe(200); // From this machine nobody asks.
    expect((await as(keys.get('north')!, 'GET', '/api/v1/devices', undefined, { 'x-matfleet-tenant': 'south' })).status).toBe(403);
    expect((await as(admin, 'GET', '/api/v1/devices', undefined, { 'x-matfleet-tenant': 'west' })).status).toBe(404);
    const seen = (await as(admin, 'GET', '/api/v1/devices', undefined, { 'x-matfleet-tenant': 'south' })).body as { name: string }[];
    expect(seen.map(({ name }) => name)).toContain('south-only');
    expect((await as(admin, 'GET', '/api/v1/devices')).body).toEqual([]);
    expect((await as(admin, 'POST', '/api/v1/tenants', { id: 'north' })).status).toBe(409);
    expect((await as(admin, 'POST', '/api/v1/tenants', { id: '*' })).status).toBe(400);
  });
});
