import { ChannelCredentials, Metadata, status, type ClientReadableStream, type ServiceError } from '@grpc/grpc-js';
import { ReplicaServiceClient, type RunAttemptResponse } from '@matfleet/protocol';
import { openSpan, traceParent } from '@matfleet/tracing';
import type { DeviceLink, InferenceStart, Outbound } from '../fleet/device-links.js';
import type { AttemptHub } from '../inference/attempt-hub.js';
import { attemptEventOf, toWire } from './wire.js';

/** Beyond the attempt's own deadline, which its runner keeps. */
const GRACE_MS = 5_000;

/** Ways to devices that other replicas hold: one channel a replica, one call an attempt. */
export class PeerLinks {
  private readonly clients = new Map<string, ReplicaServiceClient>();

  constructor(
    private readonly hub: AttemptHub,
    private readonly credentials: () => ChannelCredentials,
    private readonly isPeer: (address: string) => boolean,
  ) {}

  readonly link = (deviceId: string, epoch: bigint, address: string): DeviceLink => new PeerLink(deviceId, epoch, this.client(address), this.hub);

  close(): void {
    for (const client of this.clients.values()) client.close();
    this.clients.clear();
  }

  private client(address: string): ReplicaServiceClient {
    for (const [known, client] of this.clients)
      if (known !== address && !this.isPeer(known)) {
        client.close();
        this.clients.delete(known);
      }
    let client = this.clients.get(address);
    if (!client) {
      client = new ReplicaServiceClient(address, this.credentials(), {
        'grpc.enable_channelz': 0,
        'grpc.enable_retries': 0,
        'grpc.keepalive_time_ms': 10_000,
        'grpc.keepalive_timeout_ms': 5_000,
        'grpc.max_reconnect_backoff_ms': 2_000,
        'grpc.use_local_subchannel_pool': 1,
        'grpc.enable_http_proxy': 0,
      });
      this.clients.set(address, client);
    }
    return client;
  }
}

class PeerLink implements DeviceLink {
  private readonly calls = new Map<string, ClientReadableStream<RunAttemptResponse>>();

  constructor(
    readonly deviceId: string,
    readonly epoch: bigint,
    private readonly client: ReplicaServiceClient,
    private readonly hub: AttemptHub,
  ) {}

  /** Carries inferences alone: documents reach the other replica by its own reading of the database. */
  send(message: Outbound): boolean {
    if (message.kind === 'start-inference') return this.run(message.start);
    if (message.kind !== 'cancel-inference') return false;
    this.calls.get(message.attemptId)?.cancel();
    return true;
  }

  close(reason: string): void {
    for (const [attemptId, call] of this.calls) {
      call.cancel();
      this.hub.deliver(this.deviceId, attemptId, { kind: 'lost', reason });
    }
  }

  private run(start: InferenceStart): boolean {
    const { message } = toWire({ kind: 'start-inference', start });
    if (message?.$case !== 'startInference') return false;
    const { attemptId } = start;
    const deadline = Date.now() + start.remainingMs + GRACE_MS;
    const span = openSpan('replica RunAttempt', {
      kind: 'client',
      attributes: { 'matfleet.device.id': this.deviceId, 'matfleet.attempt.id': attemptId },
    });
    const metadata = new Metadata();
    const parent = span.run(traceParent);
    if (parent !== undefined) metadata.set('traceparent', parent);
    const call = this.client.runAttempt({ deviceId: this.deviceId, epoch: this.epoch, start: message.value }, metadata, { deadline });
    let ended = false;
    this.calls.set(attemptId, call);
    const lost = (reason: string): void => {
      this.calls.delete(attemptId);
      if (!ended) this.hub.deliver(this.deviceId, attemptId, { kind: 'lost', reason });
      span.end(ended ? undefined : 'lost');
      ended = true;
    };
    call.on('data', ({ event }: RunAttemptResponse) => {
      const heard = event && attemptEventOf(event);
      if (!heard) return;
      ended ||= heard.kind === 'finished' || heard.kind === 'failed';
      this.hub.deliver(this.deviceId, attemptId, heard, 'peer');
    });
    call.on('error', (error: ServiceError) => lost(error.code === status.CANCELLED ? 'cancelled' : error.details || error.message));
    call.on('end', () => lost('the replica that holds the device ended the attempt'));
    return true;
  }
}
