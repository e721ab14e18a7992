import 'reflect-metadata';
import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  experimental,
  Metadata,
  Server,
  status,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { Pkcs10CertificateRequest } from '@peculiar/x509';
import {
  ArtifactServiceService,
  Desired,
  DeviceServiceService,
  formatJoinToken,
  type EnrollRequest,
  type EnrollResponse,
  type FetchChunkRequest,
  type FetchChunkResponse,
  type GetManifestRequest,
  type GetManifestResponse,
  type RenewRequest,
  type RenewResponse,
  type SessionRequest,
  type SessionResponse,
  type StartInference,
  type SyncRequest,
  type SyncResponse,
} from '../index.js';
import { createTestCa } from './test-ca.js';

export interface FakeControlPlaneOptions {
  /** Model packages that ArtifactService serves. */
  readonly packageDirs?: readonly string[];
  readonly port?: number;
  readonly heartbeatMs?: number;
  readonly leaseMs?: number;
  readonly reconnectJitterMs?: number;
  /** Called per chunk message; may answer other bytes, or undefined to break the stream. */
  readonly onChunkData?: (chunkId: string, offset: number, data: Buffer) => Buffer | undefined;
  /** Refuse streams, as a proxy that breaks them does; Sync still works. */
  readonly refuseStreams?: boolean;
  /** Refuse streams of a device whose standing is this. */
  readonly standing?: string;
  /** Take requests for a new certificate and lose the answer. */
  readonly loseRenewals?: boolean;
  /** Turn sessions away as one too many, naming so many milliseconds. */
  readonly retryAfterMs?: number | undefined;
}

type Sent = NonNullable<SessionRequest['message']>;

const SECRET = 'c2VjcmV0LW9mLWEtZmFrZS1mbGVldA';
const CHUNK_MESSAGE_BYTES = 64 * 1024;

/** A scripted control plane over a real socket with real mTLS: a test drives one or more agents with it. Not for production. */
export class FakeControlPlane {
  /** Everything that devices sent on sessions, oldest first. */
  readonly received: { readonly deviceId: string; readonly request: SessionRequest }[] = [];
  /** Bytes of chunks that were served, by chunk. */
  readonly servedBytes = new Map<string, number>();
  readonly enrolments: { readonly publicKeySha256: string; readonly deviceId: string }[] = [];
  /** SHA-256 of each key for which a certificate was asked, oldest first. */
  readonly renewals: string[] = [];
  url = '';
  joinToken = '';
  port = 0;
  acknowledge = true;
  /** Sessions that `retryAfterMs` refused. */
  turnedAway = 0;
  private server = new Server({ 'grpc.enable_channelz': 0 });
  private readonly calls = new Map<string, ServerDuplexStream<SessionRequest, SessionResponse>>();
  private readonly desired = new Map<string, Desired>();
  private epoch = 0n;

  private constructor(
    private readonly ca: Awaited<ReturnType<typeof createTestCa>>,
    private readonly options: FakeControlPlaneOptions,
  ) {}

  static async start(options: FakeControlPlaneOptions = {}): Promise<FakeControlPlane> {
    const fake = new FakeControlPlane(await createTestCa(), options);
    await fake.listen(options.port ?? 0);
    fake.joinToken = formatJoinToken({ secret: SECRET, caSha256: fake.ca.sha256 });
    return fake;
  }

  get caPem(): string {
    return this.ca.certificatePem;
  }

  /** Closes the port and every session, as a crashed control plane does. */
  stop(): void {
    this.server.forceShutdown();
    this.calls.clear();
  }

  /** Listens again on the same port, with the same CA and the same desired documents. */
  async restart(): Promise<void> {
    this.server = new Server({ 'grpc.enable_channelz': 0 });
    await this.listen(this.port);
  }

  connected(deviceId: string): boolean {
    return this.calls.has(deviceId);
  }

  setDesired(deviceId: string, desired: Partial<Desired>): void {
    const document = Desired.fromPartial(desired);
    this.desired.set(deviceId, document);
    this.send(deviceId, { message: { $case: 'desired', value: document } });
  }

  startInference(deviceId: string, start: StartInference): void {
    this.send(deviceId, { message: { $case: 'startInference', value: start } });
  }

  send(deviceId: string, response: SessionResponse): void {
    this.calls.get(deviceId)?.write(response);
  }

  /** Breaks the device's stream. */
  disconnect(deviceId: string): void {
    this.calls.get(deviceId)?.emit('error', { code: status.UNAVAILABLE, details: 'cut' });
    this.calls.delete(deviceId);
  }

  /** Messages of one kind from one device. */
  messages<Case extends Sent['$case']>(deviceId: string, kind: Case): Extract<Sent, { $case: Case }>['value'][] {
    return this.received.flatMap(({ deviceId: from, request: { message } }) =>
      from === deviceId && message?.$case === kind ? [message.value as never] : [],
    );
  }

  /** Waits until `probe` answers a value; rejects after `timeoutMs`, naming `what`. */
  async until<T>(what: string, probe: () => T | undefined | false, timeoutMs = 15_000): Promise<T> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const found = probe();
      if (found) return found;
      if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  private async listen(port: number): Promise<void> {
    const { keyPem, chainPem } = await this.ca.server();
    // Asks for a client certificate without demanding one: Enroll has none. Handlers see only verified ones.
    const material = {
      addCaCertificateListener: (listener: (update: { caCertificate: Buffer }) => void) =>
        listener({ caCertificate: Buffer.from(this.ca.certificatePem) }),
      removeCaCertificateListener: () => {},
      addIdentityCertificateListener: (listener: (update: { certificate: Buffer; privateKey: Buffer }) => void) =>
        listener({ certificate: Buffer.from(chainPem), privateKey: Buffer.from(keyPem) }),
      removeIdentityCertificateListener: () => {},
    };
    const credentials = experimental.createCertificateProviderServerCredentials(material, material, false);
    // The context is filled in by the first watcher; without one the server would start without certificates.
    credentials._addWatcher(() => {});
    this.server.addService(DeviceServiceService, {
      enroll: (call: ServerUnaryCall<EnrollRequest, EnrollResponse>, callback: Answer<EnrollResponse>) =>
        void this.enroll(call.request).then((r) => callback(null, r), callback),
      session: (call: ServerDuplexStream<SessionRequest, SessionResponse>) => this.session(call),
      sync: (call: ServerUnaryCall<SyncRequest, SyncResponse>, callback: Answer<SyncResponse>) => this.sync(call, callback),
      renew: (call: ServerUnaryCall<RenewRequest, RenewResponse>, callback: Answer<RenewResponse>) =>
        void this.renew(call).then((r) => callback(null, r), callback),
    });
    this.server.addService(ArtifactServiceService, {
      getManifest: (call: ServerUnaryCall<GetManifestRequest, GetManifestResponse>, callback: Answer<GetManifestResponse>) =>
        void this.manifest(call.request).then((r) => callback(null, r), callback),
      fetchChunk: (call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>) => void this.chunk(call),
    });
    this.port = await new Promise<number>((resolve, reject) =>
      this.server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    this.url = `https://127.0.0.1:${this.port}`;
  }

  private async enroll(request: EnrollRequest): Promise<EnrollResponse> {
    if (request.token !== SECRET) throw refusal(status.PERMISSION_DENIED, 'unknown join token');
    const publicKeySha256 = createHash('sha256').update(publicKeyOf(request.csrPem)).digest('hex');
    const deviceId = this.enrolments.find((known) => known.publicKeySha256 === publicKeySha256)?.deviceId ?? randomUUID();
    this.enrolments.push({ publicKeySha256, deviceId });
    const certificatePem = await this.ca.sign(request.csrPem, deviceId);
    return { deviceId, certificatePem, caPem: this.ca.certificatePem, deviceName: request.deviceName, pending: false, retryAfterMs: 0 };
  }

  private async renew(call: ServerUnaryCall<RenewRequest, RenewResponse>): Promise<RenewResponse> {
    const deviceId = commonName(call);
    if (!deviceId) throw refusal(status.UNAUTHENTICATED, 'no device certificate');
    this.renewals.push(createHash('sha256').update(publicKeyOf(call.request.csrPem)).digest('hex'));
    if (this.options.loseRenewals) throw refusal(status.UNAVAILABLE, 'the answer is lost');
    return { certificatePem: await this.ca.sign(call.request.csrPem, deviceId), renewInMs: 1_000n };
  }

  private session(call: ServerDuplexStream<SessionRequest, SessionResponse>): void {
    const deviceId = commonName(call);
    if (!deviceId) return void call.emit('error', refusal(status.UNAUTHENTICATED, 'no device certificate'));
    if (this.options.refuseStreams) return void call.emit('error', refusal(status.UNAVAILABLE, 'streams do not get through'));
    const { retryAfterMs, standing } = this.options;
    if (standing !== undefined) {
      const metadata = new Metadata();
      metadata.set('matfleet-standing', standing);
      this.turnedAway += 1;
      return void call.emit('error', { ...refusal(status.UNAUTHENTICATED, `the device is ${standing}`), metadata });
    }
    if (retryAfterMs !== undefined) {
      const metadata = new Metadata();
      metadata.set('retry-after-ms', String(retryAfterMs));
      this.turnedAway += 1;
      return void call.emit('error', { ...refusal(status.RESOURCE_EXHAUSTED, 'too many sessions'), metadata });
    }
    call.on('data', (request: SessionRequest) => {
      for (const response of this.answer(deviceId, request)) call.write(response);
      if (request.message?.$case === 'hello') this.calls.set(deviceId, call);
    });
    const gone = (): void => {
      if (this.calls.get(deviceId) === call) this.calls.delete(deviceId);
    };
    call.on('end', () => call.end());
    call.on('cancelled', gone);
    call.on('close', gone);
    call.on('error', gone);
  }

  private sync(call: ServerUnaryCall<SyncRequest, SyncResponse>, callback: Answer<SyncResponse>): void {
    const deviceId = commonName(call);
    if (!deviceId) return callback(refusal(status.UNAUTHENTICATED, 'no device certificate'));
    return callback(null, { messages: call.request.messages.flatMap((request) => this.answer(deviceId, request)) });
  }

  private answer(deviceId: string, request: SessionRequest): SessionResponse[] {
    this.received.push({ deviceId, request });
    const { message } = request;
    const { heartbeatMs = 200, leaseMs = 1_000, reconnectJitterMs = 0 } = this.options;
    if (message?.$case === 'hello') {
      this.epoch += 1n;
      const welcome = { epoch: this.epoch, deviceId, heartbeatMs, leaseMs, reconnectJitterMs, serverTimeUnixMs: BigInt(Date.now()) };
      const desired = this.desired.get(deviceId);
      return [
        { message: { $case: 'welcome', value: welcome } },
        ...(desired && desired.generation > message.value.storedGeneration ? [{ message: { $case: 'desired' as const, value: desired } }] : []),
      ];
    }
    if (!this.acknowledge) return [];
    if (message?.$case === 'heartbeat')
      return [{ message: { $case: 'heartbeatAck', value: { sequence: message.value.sequence, serverTimeUnixMs: BigInt(Date.now()) } } }];
    if (message?.$case === 'report') return [{ message: { $case: 'reportAck', value: { sequence: message.value.sequence } } }];
    return [];
  }

  private async manifest({ modelVersionId }: GetManifestRequest): Promise<GetManifestResponse> {
    for (const dir of this.options.packageDirs ?? []) {
      const manifest = await readFile(join(dir, 'manifest.json'));
      if (createHash('sha256').update(manifest).digest('hex') === modelVersionId) return { manifest };
    }
    throw refusal(status.NOT_FOUND, `no model version ${modelVersionId}`);
  }

  private async storedChunk(chunkId: string): Promise<Buffer | undefined> {
    if (!/^[0-9a-f]{64}$/.test(chunkId)) return undefined;
    for (const dir of this.options.packageDirs ?? []) {
      const bytes = await readFile(join(dir, 'chunks', chunkId)).catch(() => undefined);
      if (bytes) return bytes;
    }
    return undefined;
  }

  private async chunk(call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>): Promise<void> {
    const { chunkId, offset, length } = call.request;
    const { onChunkData } = this.options;
    const bytes = await this.storedChunk(chunkId);
    if (!bytes || !commonName(call))
      return void call.emit('error', refusal(bytes ? status.UNAUTHENTICATED : status.NOT_FOUND, `no chunk ${chunkId}`));
    const end = length === 0n ? bytes.length : Math.min(bytes.length, Number(offset + length));
    for (let at = Number(offset); at < end; at += CHUNK_MESSAGE_BYTES) {
      const piece = bytes.subarray(at, Math.min(end, at + CHUNK_MESSAGE_BYTES));
      const data = onChunkData ? onChunkData(chunkId, at, piece) : piece;
      if (!data) return void call.emit('error', refusal(status.UNAVAILABLE, 'cut'));
      this.servedBytes.set(chunkId, (this.servedBytes.get(chunkId) ?? 0) + data.length);
      if (!call.write({ data })) await new Promise<void>((resolve) => call.once('drain', resolve).once('cancelled', resolve));
      if (call.cancelled) return;
    }
    call.end();
  }
}

type Answer<T> = (error: ServiceError | null, response?: T) => void;

const refusal = (code: status, details: string): ServiceError => Object.assign(new Error(details), { code, details, metadata: undefined as never });

function commonName(call: {
  getAuthContext(): { sslPeerCertificate?: { subject: { CN?: string | string[] | undefined } } | undefined };
}): string | undefined {
  const name = call.getAuthContext().sslPeerCertificate?.subject.CN;
  return Array.isArray(name) ? name[0] : name;
}

const publicKeyOf = (csrPem: string): string => new Pkcs10CertificateRequest(csrPem).publicKey.toString('pem');
