import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChannelCredentials } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Delta, DeviceServiceClient, FinishReason, parseJoinToken, Phase, ReplicaServiceClient, type EnrollResponse } from '@matfleet/protocol';
import { FakeDevice } from '@matfleet/protocol/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { manifestOnlyPackage } from '../../../../test/support/manifest-only-package.js';
import { describeWithRedis, startRedis, type RedisServer } from '../../../../test/support/needs.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { fenced, Fenced } from '../database/fence.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { Endpoints } from '../endpoints.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import { Leadership } from './leadership.js';
import { ReplicaRepository } from './replica.repository.js';

const HEARTBEAT_MS = 300;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const model = manifestOnlyPackage('pair', 1);

interface Identity {
  readonly deviceId: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}
interface Seen {
  id: string;
  state: string;
  answer: string | null;
  presence: string;
  name: string;
  attempts: { state: string; deviceName: string; error: string | null }[];
}

/** Two replicas on one database and one data directory. */
class Pair {
  private readonly apps: NestFastifyApplication[] = [];
  private readonly urls: string[] = [];
  private readonly targets: string[] = [];
  private readonly open: FakeDevice[] = [];
  private readonly beats: NodeJS.Timeout[] = [];
  caPem = '';
  private apiKey = '';

  private constructor(
    readonly database: TestDatabase,
    private readonly dataDir: string,
    private readonly redisUrl: string | undefined,
  ) {}

  static async start(redisUrl?: string): Promise<Pair> {
    const database = await createDatabase();
    await migrate(database.url);
    const pair = new Pair(database, await mkdtemp(join(tmpdir(), 'matfleet-pair-')), redisUrl);
    await pair.startReplica();
    await pair.startReplica();
    pair.apiKey = (await readFile(join(pair.dataDir, 'admin-api-key'), 'utf8')).trim();
    pair.caPem = await readFile(join(pair.dataDir, 'ca', 'certificate.pem'), 'utf8');
    const { missingChunks } = await pair.call<{ missingChunks: string[] }>(0, 'POST', '/api/v1/models', model.manifest);
    for (const id of missingChunks) await pair.call(1, 'PUT', `/api/v1/chunks/${id}`, model.chunks.get(id)!);
    await pair.call(0, 'POST', `/api/v1/models/${model.id}/publish`);
    // Each replica reads who the others are every two seconds.
    await until(
      async () => pair.replica(0).get(ReplicaRepository, { strict: false }).list(),
      (list) => list.length === 2,
    );
    await new Promise((resolve) => setTimeout(resolve, 2_200));
    return pair;
  }

  private async startReplica(): Promise<void> {
    const config = parseConfig({
      MATFLEET_DATA_DIR: this.dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS),
      MATFLEET_LEASE_MS: '1200',
      REDIS_URL: this.redisUrl,
    });
    const app = await createApplication(config, this.database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    this.apps.push(app);
    this.urls.push(await app.getUrl());
    this.targets.push(new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host);
  }

  replica(index: number): NestFastifyApplication {
    return this.apps[index]!;
  }

  target(index: number): string {
    return this.targets[index]!;
  }

  async call<T = Seen>(index: number, method: string, path: string, body?: unknown): Promise<T> {
    const isBytes = body instanceof Buffer;
    const type = isBytes ? 'application/octet-stream' : 'application/json';
    const response = await fetch(`${this.urls[index]}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.apiKey}`, ...(body !== undefined && { 'content-type': type }) },
      ...(body !== undefined && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text ? JSON.parse(text) : {}) as T;
  }

  async enrol(name: string): Promise<Identity> {
    const { token } = await this.call<{ token: string }>(0, 'POST', '/api/v1/join-tokens', { uses: 1 });
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
    const request = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=whatever', keys: keys as never, signingAlgorithm: algorithm });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    const client = new DeviceServiceClient(this.target(0), ChannelCredentials.createSsl(Buffer.from(this.caPem)));
    const { deviceId, certificatePem } = await new Promise<EnrollResponse>((resolve, reject) =>
      client.enroll({ token: parseJoinToken(token).secret, csrPem: request.toString('pem'), deviceName: name }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      ),
    ).finally(() => client.close());
    return { deviceId, certificatePem, keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n` };
  }

  /** A device's session with one replica; it beats. */
  async connect(index: number, identity: Identity, storedGeneration = 0n): Promise<FakeDevice> {
    const device = new FakeDevice({ target: this.target(index), caPem: this.caPem, certificate: identity });
    this.open.push(device);
    device.open({
      storedGeneration,
      capabilities: { architecture: 'x64', platform: 'linux', cores: 2, modelMemoryBytes: 1n << 30n, memoryBandwidthBytesPerSecond: 10_000_000_000n },
    });
    await device.next('welcome');
    const beat = setInterval(() => device.heartbeat(), HEARTBEAT_MS / 3);
    this.beats.push(beat.unref());
    return device;
  }

  async running(index: number, name: string): Promise<{ device: FakeDevice; identity: Identity }> {
    const identity = await this.enrol(name);
    const device = await this.connect(index, identity);
    await this.activate(device);
    return { device, identity };
  }

  /** Takes its document and runs it. */
  async activate(device: FakeDevice): Promise<bigint> {
    const { generation, modelVersionId, sliceId } = await device.next('desired', 15_000);
    const observed = { generation, modelVersionId, sliceId };
    device.send({
      message: {
        $case: 'report',
        value: {
          sequence: generation,
          generation,
          phase: Phase.PHASE_ACTIVE,
          observed,
          fetchedBytes: 1n,
          totalBytes: 1n,
          error: '',
          activation: undefined,
        },
      },
    });
    await device.next('reportAck');
    return generation;
  }

  async tidy(): Promise<void> {
    for (const beat of this.beats.splice(0)) clearInterval(beat);
    for (const device of this.open.splice(0)) device.close();
    for (const device of await this.call<{ id: string }[]>(0, 'GET', '/api/v1/devices')) await this.call(0, 'DELETE', `/api/v1/devices/${device.id}`);
  }

  async stop(): Promise<void> {
    for (const app of this.apps) await app.close();
    await this.database.drop();
    await rm(this.dataDir, { recursive: true, force: true });
  }
}

/** Answers what it is asked, in two pieces, until it is closed. */
async function answering(device: FakeDevice, text: readonly [string, string]): Promise<void> {
  const { attemptId, modelVersionId, sliceId } = await device.next('startInference', 15_000);
  const events = [
    { $case: 'started', value: { requestId: attemptId, deviceId: '', modelVersionId, modelName: '', sliceId, promptTokens: 1, queueMs: 0 } },
    { $case: 'delta', value: Delta.fromPartial({ text: text[0] }) },
    { $case: 'delta', value: Delta.fromPartial({ text: text[1] }) },
    {
      $case: 'finished',
      value: { reason: FinishReason.FINISH_REASON_STOP, outputTokens: 2, cachedPromptTokens: 0, ttftMs: 1, tokensPerSecond: 100 },
    },
  ] as const;
  for (const [index, event] of events.entries())
    device.send({
      message: { $case: 'inferenceEvent', value: { attemptId, sequence: BigInt(index + 1), event: { $case: 'response', value: { event } } } },
    });
}

async function until<T>(look: () => Promise<T>, done: (seen: T) => boolean, timeoutMs = 15_000): Promise<T> {
  for (const end = Date.now() + timeoutMs; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const seen = await look();
    if (done(seen)) return seen;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain; last seen: ${JSON.stringify(seen)}`);
  }
}

const suite = (redisUrl: () => string | undefined, { nudgedMs, revokedMs }: { nudgedMs: number; revokedMs: number }): void => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start(redisUrl());
  });
  afterEach(() => pair.tidy());
  afterAll(() => pair?.stop());

  const presenceAt = (index: number, deviceId: string) => pair.call(index, 'GET', `/api/v1/devices/${deviceId}`).then(({ presence }) => presence);

  it('show a device as online wherever its session lives, and as offline at both once its lease has run out', async () => {
    const { device, identity } = await pair.running(0, 'kiosk');
    expect(await presenceAt(0, identity.deviceId)).toBe('online');
    expect(await presenceAt(1, identity.deviceId)).toBe('online');
    device.close();
    for (const index of [0, 1])
      await until(
        () => presenceAt(index, identity.deviceId),
        (presence) => presence === 'suspect',
      );
    for (const index of [0, 1])
      await until(
        () => presenceAt(index, identity.deviceId),
        (presence) => presence === 'offline',
      );
  });

  it('end the older session of a device that says Hello to the other one, and that replica serves it from then on', async () => {
    const { device, identity } = await pair.running(0, 'kiosk');
    const second = await pair.connect(1, identity, 1n);
    await until(
      () => Promise.resolve(device.ended),
      (ended) => ended !== undefined,
      nudgedMs,
    );
    expect(second.ended).toBeUndefined();
    expect(await presenceAt(0, identity.deviceId)).toBe('online');
  });

  it('bring a document that was decided at one to a device at the other', async () => {
    const { device, identity } = await pair.running(0, 'kiosk');
    const other = manifestOnlyPackage('pair', Date.now());
    await pair.call(1, 'POST', '/api/v1/models', other.manifest);
    for (const [id, bytes] of other.chunks) await pair.call(1, 'PUT', `/api/v1/chunks/${id}`, bytes);
    await pair.call(1, 'POST', `/api/v1/models/${other.id}/publish`);
    const { id } = await pair.call(1, 'POST', '/api/v1/rollouts', { modelVersionId: other.id, deviceIds: [identity.deviceId] });
    expect(await pair.activate(device)).toBe(2n);
    for (const index of [0, 1])
      await until(
        () => pair.call(index, 'GET', `/api/v1/rollouts/${id}`),
        (rollout) => rollout.state === 'succeeded',
        60_000,
      );
  }, 90_000);

  it('end a session at one when the other one is told to revoke its device, with the reason', async () => {
    const { device, identity } = await pair.running(0, 'kiosk');
    await pair.call(1, 'POST', `/api/v1/devices/${identity.deviceId}/revoke`, { reason: 'stolen' });
    await until(
      () => Promise.resolve(device.ended),
      (ended) => ended?.includes('was revoked: stolen') === true,
      revokedMs,
    );
  });

  it('answer an inference with a device that either holds, whoever took it', async () => {
    const { device } = await pair.running(0, 'kiosk');
    for (let turn = 0; turn < 6; turn++) {
      const text = answering(device, ['half ', `and half ${turn}`]);
      const { id } = await pair.call(turn % 2, 'POST', '/api/v1/inferences', { prompt: 'hello', deadlineMs: 20_000 });
      await text;
      const done = await until(
        () => pair.call((turn + 1) % 2, 'GET', `/api/v1/inferences/${id}`),
        (inference) => inference.state === 'succeeded',
      );
      expect(done).toMatchObject({ answer: `half and half ${turn}`, attempts: [{ deviceName: 'kiosk', state: 'succeeded' }] });
    }
  }, 60_000);

  it('let one of them lead', () => {
    expect([0, 1].filter((index) => pair.replica(index).get(Leadership, { strict: false }).leading)).toHaveLength(1);
  });

  it('take attempts from a replica alone, not from a device', async () => {
    const { identity } = await pair.running(0, 'kiosk');
    const credentials = ChannelCredentials.createSsl(Buffer.from(pair.caPem), Buffer.from(identity.keyPem), Buffer.from(identity.certificatePem));
    const client = new ReplicaServiceClient(pair.target(0), credentials);
    const call = client.runAttempt({ deviceId: identity.deviceId, epoch: 1n, start: undefined });
    const error = await new Promise<Error>((resolve) => call.on('error', resolve).on('data', () => undefined));
    client.close();
    expect(error.message).toContain('a certificate of a replica of this control plane is needed');
  });
};

describeWithRedis('two replicas on one PostgreSQL and one Redis', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.stop());
  // Less than the sweep that finds it without Redis.
  suite(() => redis.url, { nudgedMs: 2_000, revokedMs: 1_000 });
});

describe('two replicas without Redis', () => suite(() => undefined, { nudgedMs: 12_000, revokedMs: 5_000 }));

describe('the leader lease', () => {
  let database: TestDatabase;
  let prisma: PrismaService;
  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    prisma = new PrismaService(database.url);
  });
  afterAll(async () => {
    await prisma.$disconnect();
    await database.drop();
  });

  it('goes to one replica, to the next one with a higher token once the first is gone, and a write with the old token is refused', async () => {
    const repository = new ReplicaRepository(prisma);
    await repository.join('one', 'host:1');
    await repository.join('two', 'host:2');
    const first = (await repository.lead('fleet', 'one', 60_000))!;
    expect(await repository.lead('fleet', 'two', 60_000)).toBeNull();
    expect(await repository.lead('fleet', 'one', 60_000)).toEqual(first);
    // The process was killed; the next one at its address takes its place.
    await repository.join('three', 'host:1');
    const second = (await repository.lead('fleet', 'two', 60_000))!;
    expect(second.token).toBe(first.token + 1n);
    const write = (fence: typeof first): Promise<number> => fenced(prisma.system, fence, (tx) => tx.device.count());
    await expect(write(second)).resolves.toBe(0);
    await expect(write(first)).rejects.toThrow(Fenced);
  });
});
