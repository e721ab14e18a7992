import { createHash, webcrypto } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChannelCredentials } from '@grpc/grpc-js';
import { expect } from '@jest/globals';
import { footprint, type Manifest } from '@matfleet/model';
import {
  Activation,
  DeviceServiceClient,
  FinishReason,
  parseJoinToken,
  Phase,
  type EnrollResponse,
  type GenerateResponse,
  type StartInference,
} from '@matfleet/protocol';
import { FakeDevice } from '@matfleet/protocol/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { ApiKeyService } from '../../apps/control-plane/src/access/api-key.service.js';
import { createApplication } from '../../apps/control-plane/src/application.js';
import { parseConfig } from '../../apps/control-plane/src/config.js';
import { migrate } from '../../apps/control-plane/src/database/migrate.js';
import { manifestOf, sliceOf } from '../../apps/control-plane/src/domain/fixtures.js';
import { Endpoints } from '../../apps/control-plane/src/endpoints.js';
import { createLogger, PinoNestLogger } from '../../apps/control-plane/src/telemetry.js';
import { createDatabase, type TestDatabase } from './database.js';

export const HEARTBEAT_MS = 300;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const slices = [sliceOf('small', 0, 0.6, { skip: true }), sliceOf('middle', 3, 0.8), sliceOf('large', 6, 0.96)];

interface Package {
  readonly manifest: Manifest;
  readonly bytes: Buffer;
  readonly id: string;
  readonly chunks: ReadonlyMap<string, Buffer>;
}

/** A package whose chunks have the sizes of the manifest; what they hold does not matter to the control plane. */
export function packageOf(seed: string): Package {
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

/** What the rig has published: slices small, middle and large. */
export const first = packageOf('first');

export interface Identity {
  readonly deviceId: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}

/** An inference as an operator sees it. */
export interface Seen {
  id: string;
  state: string;
  answer: string | null;
  error: string | null;
  sliceId: string | null;
  attempts: { deviceName: string; state: string; reason: string; error: string | null }[];
}

export async function until<T>(read: () => Promise<T>, done: (value: T) => boolean, timeoutMs = 10_000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await read();
    if (done(value)) return value;
    if (Date.now() > end) throw new Error(`not reached within ${timeoutMs} ms: ${JSON.stringify(value)}`);
    await sleep(25);
  }
}

/** What the device says of an attempt. */
export function answer(device: FakeDevice, start: StartInference, sequence: number, event: GenerateResponse['event']): void {
  device.send({
    message: {
      $case: 'inferenceEvent',
      value: { attemptId: start.attemptId, sequence: BigInt(sequence), event: { $case: 'response', value: { event } } },
    },
  });
}
export const started = (start: StartInference): GenerateResponse['event'] => ({
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
export const delta = (text: string): GenerateResponse['event'] => ({ $case: 'delta', value: { text, tokenIds: [] } });
export const finished: GenerateResponse['event'] = {
  $case: 'finished',
  value: { reason: FinishReason.FINISH_REASON_STOP, outputTokens: 2, ttftMs: 5, tokensPerSecond: 100, cachedPromptTokens: 0 },
};

/** A control plane in this process on a database of its own, and scripted devices at its port: for specs of the gateway. */
export class GatewayRig {
  private readonly open: FakeDevice[] = [];

  private constructor(
    private readonly database: TestDatabase,
    private readonly app: NestFastifyApplication,
    readonly dataDir: string,
    private readonly url: string,
    private readonly apiKey: string,
    /** The device port, `host:port`. */
    readonly target: string,
    readonly caPem: string,
  ) {}

  static async start(): Promise<GatewayRig> {
    const database = await createDatabase();
    await migrate(database.url);
    const dataDir = await mkdtemp(join(tmpdir(), 'matfleet-gateway-'));
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS),
      MATFLEET_LEASE_MS: '1200',
      MATFLEET_UPGRADE_DWELL_MS: '500',
    });
    const app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    const apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    const target = new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host;
    const caPem = await readFile(join(dataDir, 'ca', 'certificate.pem'), 'utf8');
    const rig = new GatewayRig(database, app, dataDir, await app.getUrl(), apiKey, target, caPem);
    await rig.publish(first);
    return rig;
  }

  /** Between two tests: no device is left. */
  async tidy(): Promise<void> {
    for (const device of this.open.splice(0)) device.close();
    for (const device of await this.call<{ id: string }[]>('GET', '/api/v1/devices')) await this.call('DELETE', `/api/v1/devices/${device.id}`);
  }

  async stop(): Promise<void> {
    await this.app.close();
    await this.database.drop();
    await rm(this.dataDir, { recursive: true, force: true });
  }

  async call<T = Record<string, never>>(method: string, path: string, body?: unknown): Promise<T> {
    const isBytes = body instanceof Buffer;
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${this.apiKey}`,
        ...(body !== undefined && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
      },
      ...(body !== undefined && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text ? JSON.parse(text) : {}) as T;
  }

  async publish(model: Package): Promise<void> {
    const { missingChunks } = await this.call<{ missingChunks: string[] }>('POST', '/api/v1/models', model.bytes);
    for (const id of missingChunks) await this.call('PUT', `/api/v1/chunks/${id}`, model.chunks.get(id)!);
    await this.call('POST', `/api/v1/models/${model.id}/publish`);
  }

  async token(uses = 1): Promise<string> {
    return (await this.call<{ token: string }>('POST', '/api/v1/join-tokens', { uses })).token;
  }

  async newKey(): Promise<{ keyPem: string; csrPem: string }> {
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
    const request = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=whatever', keys: keys as never, signingAlgorithm: algorithm });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    return { keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, csrPem: request.toString('pem') };
  }

  enrolWith(joinToken: string, csrPem: string, deviceName: string): Promise<EnrollResponse> {
    const client = new DeviceServiceClient(this.target, ChannelCredentials.createSsl(Buffer.from(this.caPem)));
    return new Promise<EnrollResponse>((resolve, reject) =>
      client.enroll({ token: parseJoinToken(joinToken).secret, csrPem, deviceName }, (error, answered) =>
        error ? reject(error) : resolve(answered),
      ),
    ).finally(() => client.close());
  }

  async enrol(name: string): Promise<Identity> {
    const { keyPem, csrPem } = await this.newKey();
    const { deviceId, certificatePem } = await this.enrolWith(await this.token(), csrPem, name);
    return { deviceId, keyPem, certificatePem };
  }

  connect(certificate?: { keyPem: string; certificatePem: string }): FakeDevice {
    const device = new FakeDevice({ target: this.target, caPem: this.caPem, ...(certificate && { certificate }) });
    this.open.push(device);
    return device;
  }

  /** Of a box whose grant holds this slice of `first`, and not the next one. */
  hello(sliceId: string, storedGeneration = 0n) {
    const slice = slices.find(({ id }) => id === sliceId)!;
    return {
      storedGeneration,
      capabilities: {
        architecture: 'x64',
        platform: 'linux',
        cores: 2,
        modelMemoryBytes: BigInt(footprint(first.manifest, slice, 512).totalBytes),
        totalMemoryBytes: 8n << 30n,
        availableMemoryBytes: 4n << 30n,
        memoryBandwidthBytesPerSecond: 10_000_000_000n,
      },
    };
  }

  /** Enrolled, connected, running the slice that its grant holds, and beating. */
  async running(name: string, sliceId: string): Promise<{ device: FakeDevice; identity: Identity; beat: NodeJS.Timeout }> {
    const identity = await this.enrol(name);
    const device = this.connect(identity);
    device.open(this.hello(sliceId));
    await device.next('welcome');
    const desired = await device.next('desired');
    expect(desired.sliceId).toBe(sliceId);
    this.report(device, desired.generation, Phase.PHASE_ACTIVE, sliceId);
    await device.next('reportAck');
    device.heartbeat();
    const beat = setInterval(() => device.heartbeat(), HEARTBEAT_MS / 2);
    beat.unref();
    return { device, identity, beat };
  }

  report(device: FakeDevice, generation: bigint, phase: Phase, sliceId: string, modelVersionId = first.id, trial?: Partial<Activation>): void {
    const activation = trial && Activation.fromPartial(trial);
    const observed = { generation, modelVersionId, sliceId };
    device.send({
      message: {
        $case: 'report',
        value: { sequence: generation, generation, phase, observed, fetchedBytes: 1n, totalBytes: 1n, error: '', activation },
      },
    });
  }

  inferenceUntil(id: string, done: (inference: Seen) => boolean): Promise<Seen> {
    return until(() => this.call<Seen>('GET', `/api/v1/inferences/${id}`), done);
  }

  deviceOf(id: string) {
    return this.call<{ presence: string; phase: string; observed: { generation: number; sliceId: string } | null; lastSeenAt: string }>(
      'GET',
      `/api/v1/devices/${id}`,
    );
  }
}
