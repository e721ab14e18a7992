import { randomUUID } from 'node:crypto';
import { ChannelCredentials, type ClientDuplexStream } from '@grpc/grpc-js';
import { DeviceServiceClient, Hello, type Heartbeat, type SessionRequest, type SessionResponse } from '../index.js';

export interface FakeDeviceOptions {
  /** `host:port`. */
  readonly target: string;
  readonly caPem: string;
  /** Absent: connects without a client certificate. */
  readonly certificate?: { readonly keyPem: string; readonly certificatePem: string };
}

/** A scripted device over a real socket: a test says what it sends and looks at what came back. Not for production. */
export class FakeDevice {
  readonly received: SessionResponse[] = [];
  /** Why the session ended, once it has. */
  ended: string | undefined;
  readonly client: DeviceServiceClient;
  private call: ClientDuplexStream<SessionRequest, SessionResponse> | undefined;
  private sequence = 0n;

  constructor(options: FakeDeviceOptions) {
    const { certificate } = options;
    this.client = new DeviceServiceClient(
      options.target,
      ChannelCredentials.createSsl(
        Buffer.from(options.caPem),
        certificate ? Buffer.from(certificate.keyPem) : null,
        certificate ? Buffer.from(certificate.certificatePem) : null,
      ),
      { 'grpc.use_local_subchannel_pool': 1, 'grpc.enable_channelz': 0 },
    );
  }

  /** Opens the session and says Hello. */
  open(hello: Parameters<typeof Hello.fromPartial>[0] = {}): void {
    this.ended = undefined;
    const call = (this.call = this.client.session());
    call.on('data', (response: SessionResponse) => this.received.push(response));
    call.on('error', (error) => (this.ended ??= error.message));
    call.on('end', () => (this.ended ??= 'ended'));
    this.send({ message: { $case: 'hello', value: Hello.fromPartial({ bootId: randomUUID(), agentVersion: 'fake', ...hello }) } });
  }

  send(request: SessionRequest): void {
    this.call?.write(request);
  }

  heartbeat(heartbeat: Partial<Heartbeat> = {}): void {
    const value = {
      queueLength: 0,
      inFlight: 0,
      availableMemoryBytes: 0n,
      engineRssBytes: 0n,
      engineReady: true,
      latency: [],
      memoryBandwidthBytesPerSecond: 0n,
      condition: undefined,
      monotonicMs: BigInt(Math.floor(performance.now())),
      ...heartbeat,
      sequence: ++this.sequence,
    };
    this.send({ message: { $case: 'heartbeat', value } });
  }

  /** The first message of this kind, waiting for it; rejects after `timeoutMs`. */
  async next<Case extends NonNullable<SessionResponse['message']>['$case']>(
    kind: Case,
    timeoutMs = 5_000,
  ): Promise<Extract<NonNullable<SessionResponse['message']>, { $case: Case }>['value']> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const at = this.received.findIndex(({ message }) => message?.$case === kind);
      if (at >= 0) return this.received.splice(at, 1)[0]!.message!.value as never;
      if (Date.now() > end) throw new Error(`no ${kind} within ${timeoutMs} ms${this.ended ? `; the session ended: ${this.ended}` : ''}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** As a device does whose network is gone: no goodbye. */
  vanish(): void {
    this.call?.cancel();
  }

  close(): void {
    this.call?.cancel();
    this.client.close();
  }
}
