import 'reflect-metadata';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, Metadata, status, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { DeviceServiceClient, Phase, SessionRequest, type SessionResponse } from '@matfleet/protocol';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { Endpoints } from '../endpoints.js';
import { DeviceLinks } from '../fleet/device-links.js';
import { DeviceViews } from '../fleet/device-views.js';
import { Leases } from '../fleet/leases.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import { INSECURE_DEVICE_ID } from './device-auth.js';

type Call = ClientDuplexStream<SessionRequest, SessionResponse>;
type Received = NonNullable<SessionResponse['message']>;

/** On a port without TLS: the certificate has specs of its own. */
describe('a session stream', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let client: DeviceServiceClient;
  const calls: Call[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-stream-'));
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_INSECURE_DEVICE_PORT: '1',
      MATFLEET_HEARTBEAT_MS: '200',
      MATFLEET_LEASE_MS: '10000',
      MATFLEET_SESSION_AGE_MS: '1500',
    });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    client = new DeviceServiceClient(new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host, credentials.createInsecure());
  });
  afterEach(() => {
    for (const call of calls.splice(0)) call.cancel();
  });
  afterAll(async () => {
    client?.close();
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const register = (name: string): Promise<string> => enrolledDevice(app, name);

  function dial(deviceId: string): { call: Call; received: Received[]; ended: Promise<ServiceError | undefined> } {
    const metadata = new Metadata();
    metadata.set(INSECURE_DEVICE_ID, deviceId);
    const call = client.session(metadata);
    const received: Received[] = [];
    calls.push(call);
    call.on('data', ({ message }: SessionResponse) => message && received.push(message));
    const ended = new Promise<ServiceError | undefined>((resolve) => {
      call.on('error', resolve);
      call.on('end', () => resolve(undefined));
    });
    call.write(
      SessionRequest.fromPartial({ message: { $case: 'hello', value: { capabilities: { architecture: 'x64', platform: 'linux', cores: 2 } } } }),
    );
    return { call, received, ended };
  }
  const report = (sequence: bigint, phase: Phase): SessionRequest =>
    SessionRequest.fromPartial({ message: { $case: 'report', value: { sequence, generation: 0n, phase } } });
  async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
    for (const deadline = Date.now() + 10_000; !(await done()); await new Promise((resolve) => setTimeout(resolve, 20)))
      if (Date.now() > deadline) throw new Error(`waited 10 s for ${what}`);
  }
  const greeted = async (session: { received: Received[] }): Promise<void> => until('the Welcome', () => session.received[0]?.$case === 'welcome');

  it('takes reports in the order of their sequence: one that was overtaken is acknowledged and changes nothing', async () => {
    const id = await register('reorder');
    const { call, received } = dial(id);
    call.write(report(2n, Phase.PHASE_ACTIVE));
    call.write(report(1n, Phase.PHASE_FETCHING));
    call.write(report(2n, Phase.PHASE_FAILED));
    await until('three acknowledgements', () => received.filter(({ $case }) => $case === 'reportAck').length === 3);
    expect((await asTenant(app.get(DeviceViews, { strict: false })).get(id)).phase).toBe('active');
  });

  it('is told to come back soon when it has reached its age, and ends without an error', async () => {
    const id = await register('aged');
    const session = dial(id);
    await greeted(session);
    const startedAt = Date.now();
    const beats = setInterval(() => session.call.write(SessionRequest.fromPartial({ message: { $case: 'heartbeat', value: { sequence: 1n } } })), 50);
    const error = await session.ended;
    clearInterval(beats);
    expect(error).toBeUndefined();
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1_150);
    expect(session.received.at(-1)).toMatchObject({ $case: 'drain', value: { withinMs: 5_000, reason: 'the session has reached its age' } });
    expect(app.get(Leases, { strict: false }).presenceOf(id)).toBe('suspect');
  });

  it('gives a device that did not read the newest document instead of all that it missed, and no older one after it', async () => {
    const id = await register('slow');
    const session = dial(id);
    await greeted(session);
    session.call.pause();
    const links = app.get(DeviceLinks, { strict: false });
    await until('the session to be reachable', () => links.get(id) !== undefined);
    const send = (generation: number): boolean =>
      links.send(id, {
        kind: 'desired',
        document: {
          generation,
          modelVersionId: 'v',
          modelName: 'm',
          sliceId: 's',
          contextTokens: 1,
          reason: 'r'.repeat(1_000),
          rolloutId: null,
          changeOver: 'at-once',
        },
      });
    for (let generation = 1; generation <= 5_000; generation += 1) {
      expect(send(generation)).toBe(true);
      // What the sockets between the two hold must not decide.
      if (generation % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    send(4_999);
    session.call.resume();
    const generations = (): number[] =>
      session.received.flatMap((message) => (message.$case === 'desired' ? [Number(message.value.generation)] : []));
    await until('the newest document', () => generations().includes(5_000));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(generations().at(-1)).toBe(5_000);
    expect(generations().length).toBeLessThan(1_000);
    expect(generations()).toEqual([...generations()].sort((a, b) => a - b));
  });

  it('turns a device away that opens one after another, and tells it when to come back; others get in', async () => {
    const [loop, other] = [await register('loop'), await register('other')];
    const ends = await Promise.all(
      Array.from({ length: 14 }, async () => {
        const { call, ended, received } = dial(loop);
        const error = await Promise.race([ended, until('the Welcome', () => received.length > 0).then(() => undefined)]);
        call.cancel();
        return error;
      }),
    );
    const refusals = ends.filter((error) => error?.code === status.RESOURCE_EXHAUSTED);
    expect(refusals.length).toBeGreaterThanOrEqual(3);
    expect(refusals[0]!.details).toContain('opens sessions too often: come back in');
    expect(Number(refusals[0]!.metadata.get('retry-after-ms')[0])).toBeGreaterThan(0);
    await greeted(dial(other));
  });

  it('is ended by a message of 2 MB', async () => {
    const id = await register('large');
    const session = dial(id);
    await greeted(session);
    session.call.write(SessionRequest.fromPartial({ message: { $case: 'report', value: { error: 'x'.repeat(2 << 20) } } }));
    expect((await session.ended)?.code).toBe(status.RESOURCE_EXHAUSTED);
  });

  it('leaves its mark in the list of devices, which comes in pages by name', async () => {
    const key = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    const get = async (query: string): Promise<Response> =>
      fetch(`${await app.getUrl()}/api/v1/devices${query}`, { headers: { authorization: `Bearer ${key}` } });
    const names = async (query: string): Promise<string[]> => ((await (await get(query)).json()) as { name: string }[]).map(({ name }) => name);
    for (const name of ['page-c', 'page-a', 'page-b']) await register(name);
    expect(await names('?limit=2&after=page')).toEqual(['page-a', 'page-b']);
    expect((await names('?after=page-b'))[0]).toBe('page-c');
    expect((await get('?limit=0')).status).toBe(400);
  });
});
