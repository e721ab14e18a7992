import { status, type sendUnaryData, type ServerDuplexStream, type ServerUnaryCall } from '@grpc/grpc-js';
import type {
  DeviceServiceServer,
  EnrollRequest,
  EnrollResponse,
  SessionRequest,
  SessionResponse,
  SyncRequest,
  SyncResponse,
} from '@matfleet/protocol';
import type { Authority } from '../access/authority.js';
import { readCertificateRequest } from '../access/certificate-authority.js';
import type { JoinTokenService } from '../access/join-token.service.js';
import { fence } from '../domain/epoch.js';
import { DomainError, grpcStatusOf } from '../errors.js';
import { identify } from './device-auth.js';
import { DeviceSession, type Features, type Transport } from './device-session.js';
import { TokenBucket } from './token-bucket.js';

/** Messages that may wait for a slow device before its session is ended. */
const OUTBOUND_MAX = 1_024;
const HELLO_TIMEOUT_MS = 10_000;
const SYNC_MESSAGES_MAX = 256;
const NEW_SESSIONS_PER_SECOND = 200;

export interface DeviceServiceParts {
  readonly features: Features;
  readonly authority: Authority;
  readonly tokens: JoinTokenService;
  readonly insecure: boolean;
}

/** Enrol, Session and Sync, over raw grpc-js so that cancellation and backpressure stay ours. */
export function deviceService(parts: DeviceServiceParts): DeviceServiceServer {
  const { features, insecure } = parts;
  const { report } = features;
  const newSessions = new TokenBucket(NEW_SESSIONS_PER_SECOND, 2 * NEW_SESSIONS_PER_SECOND, performance.now());
  const polled = new Map<string, PolledSession>();
  const admit = (): void => {
    if (!newSessions.take(performance.now()))
      throw new DomainError('resource-exhausted', `more than ${NEW_SESSIONS_PER_SECOND} new sessions a second: come back a little later`);
  };

  return {
    enroll: unary(report, async (call: ServerUnaryCall<EnrollRequest, EnrollResponse>) => {
      admit();
      return enrol(parts, call.request);
    }),

    session: (call: ServerDuplexStream<SessionRequest, SessionResponse>) => {
      void runSession(call, { features, insecure, admit }).catch((error: unknown) => {
        const refusal = grpcError(error);
        if (refusal.code === status.INTERNAL) report(error);
        call.emit('error', refusal);
      });
    },

    sync: unary(report, async (call: ServerUnaryCall<SyncRequest, SyncResponse>) => {
      const deviceId = await identify(call, features.fleet, insecure);
      const { epoch, messages } = call.request;
      if (messages.length > SYNC_MESSAGES_MAX)
        throw new DomainError('invalid-argument', `${messages.length} messages in one Sync, at most ${SYNC_MESSAGES_MAX} are taken`);
      const first = messages[0]?.message;
      if (first?.$case === 'hello') {
        admit();
        const transport = new Outbox();
        polled.set(deviceId, { transport, session: await DeviceSession.open(features, deviceId, first.value, transport) });
      }
      const held = polled.get(deviceId);
      if (!held) throw new DomainError('failed-precondition', 'the first Sync carries Hello');
      if (first?.$case !== 'hello') {
        const fenced = fence(held.session.epoch, epoch);
        if (fenced.kind === 'stale') throw new DomainError('failed-precondition', fenced.reason);
      }
      if (!features.links.isCurrent(held.session)) {
        polled.delete(deviceId);
        throw new DomainError('failed-precondition', `epoch ${held.session.epoch} has ended: begin again with Hello`);
      }
      for (const message of first?.$case === 'hello' ? messages.slice(1) : messages) await held.session.accept(message);
      return { messages: held.transport.take() };
    }),
  };
}

interface PolledSession {
  readonly session: DeviceSession;
  readonly transport: Outbox;
}

/** What waits for the next Sync of a device. */
class Outbox implements Transport {
  private waiting: SessionResponse[] = [];

  write(message: SessionResponse): boolean {
    if (this.waiting.length >= OUTBOUND_MAX) return false;
    this.waiting.push(message);
    return true;
  }

  end(): void {
    this.waiting = [];
  }

  take(): SessionResponse[] {
    return this.waiting.splice(0);
  }
}

async function enrol({ features, authority, tokens }: DeviceServiceParts, request: EnrollRequest): Promise<EnrollResponse> {
  if (!(await tokens.isKnown(request.token.slice(0, 200)))) throw new DomainError('permission-denied', 'the join token is unknown or has expired');
  const csr = await readCertificateRequest(request.csrPem);
  const device = await features.fleet.register(csr.publicKeyHash, request.deviceName, async () => {
    if (!(await tokens.use(request.token))) throw new DomainError('permission-denied', 'the join token has no uses left');
  });
  return {
    deviceId: device.id,
    deviceName: device.name,
    certificatePem: await authority.ca.issueDevice(csr, device.id, new Date()),
    caPem: authority.ca.certificatePem,
  };
}

async function runSession(
  call: ServerDuplexStream<SessionRequest, SessionResponse>,
  parts: { features: Features; insecure: boolean; admit: () => void },
): Promise<void> {
  parts.admit();
  const deviceId = await identify(call, parts.features.fleet, parts.insecure);
  let session: DeviceSession | undefined;
  const transport: Transport = {
    write: (message) => {
      if (call.cancelled || call.writableEnded || call.destroyed) return false;
      if (call.writableLength >= OUTBOUND_MAX) {
        session?.close(`${call.writableLength} messages wait for a device that does not read them`);
        return false;
      }
      call.write(message);
      return true;
    },
    end: () => call.end(),
  };
  const lateHello = setTimeout(
    () => call.emit('error', grpcError(new DomainError('deadline-exceeded', `no Hello within ${HELLO_TIMEOUT_MS} ms`))),
    HELLO_TIMEOUT_MS,
  );
  call.once('cancelled', () => session?.finish('the stream was cut'));
  call.once('close', () => session?.finish('the stream was closed'));
  try {
    for await (const request of call as AsyncIterable<SessionRequest>) {
      if (session) await session.accept(request);
      else {
        clearTimeout(lateHello);
        if (request.message?.$case !== 'hello')
          throw new DomainError('failed-precondition', `a session begins with Hello, not with ${request.message?.$case ?? 'an unknown message'}`);
        session = await DeviceSession.open(parts.features, deviceId, request.message.value, transport);
        if (call.cancelled) session.finish('the stream was cut');
      }
    }
    session?.finish('the device ended the stream');
    call.end();
  } catch (error) {
    session?.finish(error instanceof Error ? error.message : 'the stream failed');
    if (!call.cancelled) throw error;
  } finally {
    clearTimeout(lateHello);
  }
}

function unary<Q, A>(
  report: (error: unknown) => void,
  answer: (call: ServerUnaryCall<Q, A>) => Promise<A>,
): (call: ServerUnaryCall<Q, A>, done: sendUnaryData<A>) => void {
  return (call, done) => {
    answer(call).then(
      (value) => done(null, value),
      (error: unknown) => {
        const refusal = grpcError(error);
        if (refusal.code === status.INTERNAL) report(error);
        done(refusal);
      },
    );
  };
}

/** Refusals as they are; faults of ours without their inside. */
export function grpcError(error: unknown): Error & { code: status; details: string } {
  const refusal = error instanceof DomainError ? error : new DomainError('internal', 'the control plane failed to answer; its log says why');
  return Object.assign(new Error(refusal.message), { code: grpcStatusOf(refusal.code) as status, details: refusal.message });
}
