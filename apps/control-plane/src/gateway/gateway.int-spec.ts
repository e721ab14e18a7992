import 'reflect-metadata';
import { createHash, webcrypto } from 'node:crypto';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChannelCredentials } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { footprint, histogramOf, type Manifest } from '@matfleet/model';
import {
  Activation,
  ActivationStep,
  ArtifactServiceClient,
  DeviceServiceClient,
  FinishReason,
  parseJoinToken,
  Phase,
  SyncRequest,
  type EnrollResponse,
  type GenerateResponse,
  PowerSource,
  type StartInference,
  type SyncResponse,
} from '@matfleet/protocol';
import { createTestCa, FakeDevice } from '@matfleet/protocol/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { manifestOf, sliceOf } from '../domain/fixtures.js';
import { Endpoints } from '../endpoints.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';

const HEARTBEAT_MS = 300;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const slices = [sliceOf('small', 0, 0.6, { skip: true }), sliceOf('middle', 3, 0.8), sliceOf('large', 6, 0.96)];

/** A package whose chunks have the sizes of the manifest; what they hold does not matter to the control plane. */
function packageOf(seed: string): { manifest: Manifest; bytes: Buffer; id: string; chunks: Map<string, Buffer> } {
  const chunks = new Map<string, Buffer>();
  const draft = manifestOf(slices, 20_000);
  const manifest = {
    ...draft,
    chunks: draft.chunks.map((chunk) => {
      const content = Buffer.alloc(chunk.bytes, `${seed} ${chunk.id} `);
      chunks.set(sha256(content), content);
      return { ...chunk, id: sha256(content) };
    }),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return { manifest, bytes, id: sha256(bytes), chunks };
}

interface Identity {
  readonly deviceId: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}

describe('the device gateway', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey, target, caPem] = ['', '', '', ''];
  const open: FakeDevice[] = [];
  const first = packageOf('first');

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-gateway-'));
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS),
      MATFLEET_LEASE_MS: '1200',
      MATFLEET_UPGRADE_DWELL_MS: '500',
    });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    target = new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host;
    caPem = await readFile(join(dataDir, 'ca', 'certificate.pem'), 'utf8');
    await publish(first);
  });
  afterEach(async () => {
    for (const device of open.splice(0)) device.close();
    for (const device of await call<{ id: string }[]>('GET', '/api/v1/devices')) await call('DELETE', `/api/v1/devices/${device.id}`);
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function call<T = Record<string, never>>(method: string, path: string, body?: unknown): Promise<T> {
    const isBytes = body instanceof Buffer;
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${apiKey}`,
        ...(body !== undefined && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
      },
      ...(body !== undefined && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text ? JSON.parse(text) : {}) as T;
  }

  async function publish(model: ReturnType<typeof packageOf>): Promise<void> {
    const { missingChunks } = await call<{ missingChunks: string[] }>('POST', '/api/v1/models', model.bytes);
    for (const id of missingChunks) await call('PUT', `/api/v1/chunks/${id}`, model.chunks.get(id)!);
    await call('POST', `/api/v1/models/${model.id}/publish`);
  }

  async function token(uses = 1): Promise<string> {
    return (await call<{ token: string }>('POST', '/api/v1/join-tokens', { uses })).token;
  }

  async function newKey(): Promise<{ keyPem: string; csrPem: string }> {
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
    const request = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=whatever', keys: keys as never, signingAlgorithm: algorithm });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    return { keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, csrPem: request.toString('pem') };
  }

  function enrolWith(joinToken: string, csrPem: string, deviceName: string): Promise<EnrollResponse> {
    const client = new DeviceServiceClient(target, ChannelCredentials.createSsl(Buffer.from(caPem)));
    return new Promise<EnrollResponse>((resolve, reject) =>
      client.enroll({ token: parseJoinToken(joinToken).secret, csrPem, deviceName }, (error, answer) => (error ? reject(error) : resolve(answer))),
    ).finally(() => client.close());
  }

  async function enrol(name: string): Promise<Identity> {
    const { keyPem, csrPem } = await newKey();
    const { deviceId, certificatePem } = await enrolWith(await token(), csrPem, name);
    return { deviceId, keyPem, certificatePem };
  }

  function connect(certificate?: { keyPem: string; certificatePem: string }): FakeDevice {
    const device = new FakeDevice({ target, caPem, ...(certificate && { certificate }) });
    open.push(device);
    return device;
  }

  const grantFor = (sliceId: string): bigint =>
    BigInt(
      footprint(
        first.manifest,
        slices.find((slice) => slice.id === sliceId)!,
        512,
      ).totalBytes,
    );
  const hello = (sliceId: string, storedGeneration = 0n) => ({
    storedGeneration,
    capabilities: {
      architecture: 'x64',
      platform: 'linux',
      cores: 2,
      modelMemoryBytes: grantFor(sliceId),
      totalMemoryBytes: 8n << 30n,
      availableMemoryBytes: 4n << 30n,
      memoryBandwidthBytesPerSecond: 10_000_000_000n,
    },
  });

  /** Enrolled, connected, running the slice that its grant holds, and beating. */
  async function running(name: string, sliceId: string): Promise<{ device: FakeDevice; identity: Identity; beat: NodeJS.Timeout }> {
    const identity = await enrol(name);
    const device = connect(identity);
    device.open(hello(sliceId));
    await device.next('welcome');
    const desired = await device.next('desired');
    expect(desired.sliceId).toBe(sliceId);
    report(device, desired.generation, Phase.PHASE_ACTIVE, sliceId);
    await device.next('reportAck');
    device.heartbeat();
    const beat = setInterval(() => device.heartbeat(), HEARTBEAT_MS / 2);
    beat.unref();
    return { device, identity, beat };
  }

  function report(
    device: FakeDevice,
    generation: bigint,
    phase: Phase,
    sliceId: string,
    modelVersionId = first.id,
    trial?: Partial<Activation>,
  ): void {
    const activation = trial && Activation.fromPartial(trial);
    const observed = { generation, modelVersionId, sliceId };
    device.send({
      message: {
        $case: 'report',
        value: { sequence: generation, generation, phase, observed, fetchedBytes: 1n, totalBytes: 1n, error: '', activation },
      },
    });
  }

  function answer(device: FakeDevice, start: StartInference, sequence: number, event: GenerateResponse['event']): void {
    device.send({
      message: {
        $case: 'inferenceEvent',
        value: { attemptId: start.attemptId, sequence: BigInt(sequence), event: { $case: 'response', value: { event } } },
      },
    });
  }
  const started = (start: StartInference): GenerateResponse['event'] => ({
    $case: 'started',
    value: {
      requestId: start.attemptId,
      deviceId: '',
      modelVersionId: start.modelVersionId,
      modelName: 'small',
      sliceId: start.sliceId,
      promptTokens: 3,
      queueMs: 0,
    },
  });
  const delta = (text: string): GenerateResponse['event'] => ({ $case: 'delta', value: { text, tokenIds: [] } });
  const finished: GenerateResponse['event'] = {
    $case: 'finished',
    value: { reason: FinishReason.FINISH_REASON_STOP, outputTokens: 2, ttftMs: 5, tokensPerSecond: 100, cachedPromptTokens: 0 },
  };

  interface Seen {
    id: string;
    state: string;
    answer: string | null;
    error: string | null;
    sliceId: string | null;
    attempts: { deviceName: string; state: string; reason: string; error: string | null }[];
  }
  async function until<T>(read: () => Promise<T>, done: (value: T) => boolean, timeoutMs = 10_000): Promise<T> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const value = await read();
      if (done(value)) return value;
      if (Date.now() > end) throw new Error(`not reached within ${timeoutMs} ms: ${JSON.stringify(value)}`);
      await sleep(25);
    }
  }
  const inferenceUntil = (id: string, done: (inference: Seen) => boolean): Promise<Seen> =>
    until(() => call<Seen>('GET', `/api/v1/inferences/${id}`), done);
  const deviceOf = (id: string) =>
    call<{ presence: string; phase: string; observed: { generation: number; sliceId: string } | null; lastSeenAt: string }>(
      'GET',
      `/api/v1/devices/${id}`,
    );

  describe('enrolment', () => {
    it('keeps the key of its CA from everybody but the owner, and a session hears which slice its grant holds', async () => {
      expect((await stat(join(dataDir, 'ca', 'key.pem'))).mode & 0o777).toBe(0o600);
      const { identity } = await running('kiosk', 'middle');
      await until(
        () => deviceOf(identity.deviceId),
        (device) => device.presence === 'online' && device.phase === 'active' && device.observed?.sliceId === 'middle',
      );
      const [assignment] = await call<{ reason: string; explanation: { candidates: { sliceId: string; why: string }[] } }[]>(
        'GET',
        `/api/v1/devices/${identity.deviceId}/assignments`,
      );
      expect(assignment!.reason).toContain('is the best slice that fits');
      expect(assignment!.explanation.candidates.find((candidate) => candidate.sliceId === 'large')!.why).toMatch(/needs .* of memory, the grant is/);
    });

    it('gives the same key the same device without taking another use, and a second device nothing once the uses are gone', async () => {
      const joinToken = await token(1);
      const { csrPem } = await newKey();
      const once = await enrolWith(joinToken, csrPem, 'kiosk');
      const again = await enrolWith(joinToken, csrPem, 'another-name');
      expect(again).toMatchObject({ deviceId: once.deviceId, deviceName: 'kiosk' });
      await expect(enrolWith(joinToken, (await newKey()).csrPem, 'kiosk')).rejects.toThrow('has no uses left');
      const other = await enrolWith(await token(), (await newKey()).csrPem, 'kiosk');
      expect(other.deviceName).toBe('kiosk-2');
    });

    it('refuses an unknown token and a request that its key did not sign', async () => {
      const { csrPem } = await newKey();
      await expect(enrolWith(`mf1.${'x'.repeat(32)}.${'0'.repeat(64)}`, csrPem, 'kiosk')).rejects.toThrow('unknown or has expired');
      const lines = csrPem.trim().split('\n');
      const der = Buffer.from(lines.slice(1, -1).join(''), 'base64');
      der[der.length - 1]! ^= 1;
      const forged = `${lines[0]}\n${der.toString('base64')}\n${lines.at(-1)}\n`;
      await expect(enrolWith(await token(), forged, 'kiosk')).rejects.toThrow('certificate request cannot be used');
    });
  });

  describe('identity', () => {
    const refused = async (device: FakeDevice): Promise<string> => {
      device.open(hello('small'));
      await until(
        async () => device.ended,
        (ended) => ended !== undefined,
      );
      expect(device.received).toEqual([]);
      return device.ended!;
    };

    it('refuses a session without a certificate, and with one of another CA in the name of a real device', async () => {
      const { deviceId } = await enrol('kiosk');
      expect(await refused(connect())).toContain('enrol first');
      expect(await refused(connect(await (await createTestCa()).device(deviceId)))).toContain('enrol first');
    });

    it('refuses a removed device, whose certificate is still valid, and ends its session', async () => {
      const { device, identity } = await running('kiosk', 'small');
      await call('DELETE', `/api/v1/devices/${identity.deviceId}`);
      await until(
        async () => device.ended,
        (ended) => ended !== undefined,
      );
      expect(await refused(connect(identity))).toContain('is not part of this fleet');
    });

    it('answers a call with metadata of 10 KB, and refuses one of 20 KB before any of our code sees it', async () => {
      const session = connectHttp2(`https://${target}`, { ca: caPem });
      const outcome = (bytes: number): Promise<string> =>
        new Promise((resolve) => {
          const path = '/matfleet.device.v1.DeviceService/Sync';
          const stream = session.request({
            ':method': 'POST',
            ':path': path,
            'content-type': 'application/grpc',
            te: 'trailers',
            padding: 'x'.repeat(bytes),
          });
          stream.on('response', (headers) => resolve(`grpc-status ${String(headers['grpc-status'] ?? 'later')}`));
          stream.on('error', (error) => resolve(error.message));
          stream.end(Buffer.alloc(5));
        });
      expect(await outcome(10_000)).toMatch(/^grpc-status/);
      expect(await outcome(20_000)).toContain('ENHANCE_YOUR_CALM');
      session.destroy();
    });

    it('serves a range of a chunk to a device, and nothing to a stranger', async () => {
      const identity = await enrol('kiosk');
      const chunk = first.manifest.chunks[1]!;
      const fetch = (credentials: ChannelCredentials): Promise<Buffer> =>
        new Promise((resolve, reject) => {
          const client = new ArtifactServiceClient(target, credentials);
          const parts: Buffer[] = [];
          client
            .fetchChunk({ chunkId: chunk.id, offset: 100n, length: 2_000n })
            .on('data', ({ data }: { data: Buffer }) => parts.push(data))
            .on('error', (error) => (client.close(), reject(error)))
            .on('end', () => (client.close(), resolve(Buffer.concat(parts))));
        });
      const bytes = await fetch(ChannelCredentials.createSsl(Buffer.from(caPem), Buffer.from(identity.keyPem), Buffer.from(identity.certificatePem)));
      expect(bytes.equals(first.chunks.get(chunk.id)!.subarray(100, 2_100))).toBe(true);
      await expect(fetch(ChannelCredentials.createSsl(Buffer.from(caPem)))).rejects.toThrow('client certificate');
    });
  });

  describe('a session', () => {
    it('tells how the box is doing, until it tells otherwise', async () => {
      const { device, identity, beat } = await running('kiosk', 'small');
      const told = async () => (await call<{ condition: unknown }>('GET', `/api/v1/devices/${identity.deviceId}`)).condition;
      expect(await told()).toBeNull();
      device.heartbeat({ condition: { power: PowerSource.POWER_SOURCE_BATTERY, batteryPercent: 43, temperatureCelsius: Number.NaN } });
      const expected = {
        memorySomePercent: null,
        memoryFullPercent: null,
        power: 'battery',
        batteryPercent: 43,
        temperatureCelsius: null,
        throttlesAtCelsius: null,
        roundTripMs: null,
      };
      await until(told, (condition) => condition !== null);
      device.heartbeat();
      await device.next('heartbeatAck');
      expect(await told()).toEqual(expected);
      clearInterval(beat);
    });

    it('is ended by a newer one of the same device, after which nothing of the old one has an effect', async () => {
      const { device: old, identity, beat } = await running('kiosk', 'small');
      clearInterval(beat);
      const next = connect(identity);
      next.open(hello('small', 1n));
      expect((await next.next('welcome')).epoch).toBe(2n);
      report(old, 9n, Phase.PHASE_FAILED, 'large');
      await until(
        async () => old.ended,
        (ended) => ended !== undefined,
      );
      next.heartbeat();
      await next.next('heartbeatAck');
      expect(await deviceOf(identity.deviceId)).toMatchObject({ phase: 'active', presence: 'online' });
      // The device holds generation 1 already, so that nothing is sent again.
      expect(next.received.some(({ message }) => message?.$case === 'desired')).toBe(false);
    });

    it('turns suspect, then offline, when its device falls silent without a word', async () => {
      const { identity, beat } = await running('kiosk', 'small');
      clearInterval(beat);
      await until(
        () => deviceOf(identity.deviceId),
        (device) => device.presence === 'suspect',
      );
      await until(
        () => deviceOf(identity.deviceId),
        (device) => device.presence === 'offline',
      );
    });

    it('gets a larger slice when it comes back with a larger grant', async () => {
      const { device, identity } = await running('kiosk', 'small');
      device.vanish();
      const back = connect(identity);
      back.open(hello('large', 1n));
      expect(await back.next('desired')).toMatchObject({ generation: 2n, sliceId: 'large' });
    });

    it('works by Sync where streams do not get through, and fences an old epoch', async () => {
      const identity = await enrol('kiosk');
      const client = connect(identity).client;
      const sync = (request: Parameters<typeof SyncRequest.fromPartial>[0]): Promise<SyncResponse> =>
        new Promise((resolve, reject) =>
          client.sync(SyncRequest.fromPartial(request), (error, answered) => (error ? reject(error) : resolve(answered))),
        );
      await expect(sync({ epoch: 0n, messages: [] })).rejects.toThrow('the first Sync carries Hello');
      const greeted = await sync({ epoch: 0n, messages: [{ message: { $case: 'hello', value: hello('middle') } }] });
      expect(greeted.messages.map(({ message }) => message?.$case)).toEqual(expect.arrayContaining(['welcome', 'desired']));
      const beaten = await sync({ epoch: 1n, messages: [{ message: { $case: 'heartbeat', value: { sequence: 5n, engineReady: true } } }] });
      expect(beaten.messages).toContainEqual({ message: { $case: 'heartbeatAck', value: expect.objectContaining({ sequence: 5n }) } });
      await expect(sync({ epoch: 0n, messages: [] })).rejects.toThrow('epoch 0 was replaced by epoch 1');
    });
  });

  describe('an inference', () => {
    it('goes to the only device that meets its quality floor, and streams its answer', async () => {
      await running('kiosk', 'small');
      const { device: server } = await running('server', 'large');
      const { id } = await call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9 });
      const start = await server.next('startInference');
      expect(start.request!.messages).toEqual([{ role: 2, parts: [{ content: { $case: 'text', value: 'hello' } }] }]);
      answer(server, start, 1, started(start));
      answer(server, start, 2, delta('the an'));
      await inferenceUntil(id, (inference) => inference.answer === 'the an');
      answer(server, start, 3, delta('swer'));
      answer(server, start, 4, finished);
      const done = await inferenceUntil(id, (inference) => inference.state === 'succeeded');
      expect(done).toMatchObject({ answer: 'the answer', sliceId: 'large', attempts: [{ deviceName: 'server', state: 'succeeded' }] });
      expect(done.attempts[0]!.reason).toContain('kiosk 60.0 % with small is below the floor of 90.0 %');
    });

    it('falls back to a larger device when the first dies in the middle, and is answered by that one alone', async () => {
      const kiosk = await running('kiosk', 'small');
      const { device: server } = await running('server', 'large');
      // A queue at the larger device makes the smaller the first choice.
      server.heartbeat({ queueLength: 50 });
      await sleep(HEARTBEAT_MS / 10);
      const { id } = await call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello' });
      const lost = await kiosk.device.next('startInference');
      answer(kiosk.device, lost, 1, started(lost));
      answer(kiosk.device, lost, 2, delta('half an ans'));
      await inferenceUntil(id, (inference) => inference.answer === 'half an ans');
      clearInterval(kiosk.beat);
      kiosk.device.vanish();
      const start = await server.next('startInference');
      answer(server, start, 1, started(start));
      answer(server, start, 2, delta('whole'));
      answer(server, start, 3, finished);
      const done = await inferenceUntil(id, (inference) => inference.state === 'succeeded');
      expect(done.answer).toBe('whole');
      expect(done.attempts).toMatchObject([
        { deviceName: 'kiosk', state: 'failed' },
        { deviceName: 'server', state: 'succeeded' },
      ]);
      expect(done.attempts[1]!.reason).toContain('larger than the device that failed');
      // The lost device comes back and answers after all: stored as ignored, and the answer stays.
      const back = connect(kiosk.identity);
      back.open(hello('small', 1n));
      await back.next('welcome');
      answer(back, lost, 3, finished);
      const after = await inferenceUntil(id, (inference) => inference.attempts[0]!.state === 'ignored');
      expect(after).toMatchObject({ state: 'succeeded', answer: 'whole' });
    });

    it('waits for a device that meets the floor, and fails at its deadline with the floor and the best there was', async () => {
      await running('kiosk', 'small');
      const { id } = await call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9, deadlineMs: 700 });
      const done = await inferenceUntil(id, (inference) => inference.state === 'failed');
      expect(done.error).toMatch(/deadline-exceeded.*floor of 90.0 % now; best available: kiosk with small at 60.0 %/);
      const later = await call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9 });
      const { device: server } = await running('server', 'large');
      expect((await server.next('startInference')).inferenceId).toBe(later.id);
    });
  });

  it('gives a device that turned slow a smaller slice, with the numbers, and the larger one back when it is fast again', async () => {
    const { device, beat } = await running('kiosk', 'large');
    clearInterval(beat);
    const wire = (values: number[]) => {
      const histogram = histogramOf(values);
      return { ...histogram, counts: histogram.counts.map(BigInt), zeroCount: BigInt(histogram.zeroCount), count: BigInt(histogram.count) };
    };
    /** Beats with 40 tokens of this latency until another document comes. */
    const beatUntilMoved = async (sliceId: string, interTokenMs: number) => {
      const latency = {
        modelVersionId: first.id,
        sliceId,
        ttftMs: wire([50]),
        interTokenMs: wire(Array<number>(40).fill(interTokenMs)),
        queueMs: wire([0]),
        promptTokens: 10n,
        outputTokens: 41n,
        failed: 0n,
      };
      const beats = setInterval(() => device.heartbeat({ latency: [latency] }), HEARTBEAT_MS / 2);
      return device.next('desired', 15_000).finally(() => clearInterval(beats));
    };
    const lowered = await beatUntilMoved('large', 400);
    expect(lowered).toMatchObject({ generation: 2n, sliceId: 'small' });
    expect(lowered.reason).toMatch(/large took 400 ms per token in [34] windows in a row, target 100 ms/);
    report(device, 2n, Phase.PHASE_ACTIVE, 'small');
    const raised = await beatUntilMoved('small', 2);
    expect(raised).toMatchObject({ generation: 3n, sliceId: 'large' });
    expect(raised.reason).toContain('96.0 % instead of 60.0 %');
  });

  it('brings the fleet to another model version by an update, and ends it by what the device reports', async () => {
    const { device, identity } = await running('kiosk', 'middle');
    const second = packageOf('second');
    await publish(second);
    const { id } = await call<{ id: string }>('POST', '/api/v1/updates', { modelVersionId: second.id });
    const desired = await device.next('desired', 10_000);
    expect(desired).toMatchObject({ generation: 2n, modelVersionId: second.id, sliceId: 'middle', updateId: id });
    report(device, 2n, Phase.PHASE_ACTIVE, 'middle', second.id, {
      step: ActivationStep.ACTIVATION_STEP_COMMITTED,
      ...{ goldenPromptsTotal: 3, goldenPromptsMatched: 3, goldenTokensTotal: 24, goldenTokensMatched: 24 },
      ...{ previousTokensTotal: 24, previousTokensMatched: 19, interTokenMs: 41.5 },
    });
    await until(
      () => call<{ state: string }>('GET', `/api/v1/updates/${id}`),
      (update) => update.state === 'succeeded',
    );
    expect(await deviceOf(identity.deviceId)).toMatchObject({
      observed: { generation: 2 },
      activation: {
        ...{ step: 'committed', failure: null, reason: null, goldenPromptsMatched: 3, goldenTokensTotal: 24 },
        ...{ previousTokensTotal: 24, previousTokensMatched: 19, interTokenMs: 41.5, ttftMs: null },
      },
    });
  });
});
