import { Metadata, status, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';
import type { ServerSurfaceCall } from '@grpc/grpc-js/build/src/server-call.js';
import type {
  ConfirmWipeRequest,
  ConfirmWipeResponse,
  DeviceServiceServer,
  EnrollRequest,
  EnrollResponse,
  RenewRequest,
  RenewResponse,
  SyncRequest,
  SyncResponse,
} from '@matfleet/protocol';
import { inTenant } from '../database/scope.js';
import { fence } from '../domain/epoch.js';
import { DomainError, grpcStatusOf } from '../errors.js';
import type { EnrolmentService } from '../identity/enrolment.service.js';
import { IdentityRefused } from '../identity/identity.js';
import type { Metrics } from '../telemetry.js';
import { Admission, TooMany } from './admission.js';
import { type Caller, claimedName, identify, provenKey } from './device-auth.js';
import { DeviceSession, type Features, type Transport } from './device-session.js';
import { Outbox } from './outbox.js';
import { SessionStream, type SessionCall } from './session-stream.js';

const SYNC_MESSAGES_MAX = 256;

export interface DeviceServiceParts {
  readonly features: Features;
  readonly enrolments: EnrolmentService;
  readonly insecure: boolean;
  readonly metrics: Metrics;
  /** How much of what comes is taken now, in (0, 1]. */
  readonly share: () => number;
}

/** Enrol, Session and Sync, over raw grpc-js so that cancellation and backpressure stay ours. */
export function deviceService(parts: DeviceServiceParts): DeviceServiceServer {
  const { features, insecure, metrics } = parts;
  const { report } = features;
  const admission = new Admission(performance.now(), parts.share);
  const polled = new Map<string, PolledSession>();
  const admit = (decide: (nowMs: number) => void): void => {
    try {
      decide(performance.now());
    } catch (error) {
      if (error instanceof TooMany) metrics.refusedSessions.inc({ reason: error.refusal });
      throw error;
    }
  };
  /** The device of a call that opens a session. A stranger takes no place in the queue, and a place is taken before the database is asked. */
  const admitted = (call: ServerSurfaceCall): Promise<Caller> => {
    const name = claimedName(call, insecure);
    admit((nowMs) => admission.open(name, nowMs));
    return identify(call, features.identity, insecure);
  };

  return {
    enroll: unary(report, async (call: ServerUnaryCall<EnrollRequest, EnrollResponse>) => {
      admit((nowMs) => admission.enrol(nowMs));
      return enrol(parts.enrolments, call.request);
    }),

    renew: unary(report, async (call: ServerUnaryCall<RenewRequest, RenewResponse>) => {
      admit((nowMs) => admission.enrol(nowMs));
      const { deviceId, tenantId } = await identify(call, features.identity, insecure);
      const { certificatePem, renewInMs } = await inTenant(tenantId, () => parts.enrolments.renew(deviceId, call.request.csrPem));
      return { certificatePem, renewInMs: BigInt(renewInMs) };
    }),

    confirmWipe: unary(report, async (call: ServerUnaryCall<ConfirmWipeRequest, ConfirmWipeResponse>) => {
      const { deviceId, tenantId, publicKeyHash } = provenKey(call);
      await inTenant(tenantId, () => features.identity.wiped(deviceId, publicKeyHash));
      return {};
    }),

    session: (call: SessionCall) => {
      const fail = (error: unknown): void => {
        const refusal = grpcError(error);
        if (refusal.code === status.INTERNAL) report(error);
        call.emit('error', refusal);
      };
      void (async () => {
        const caller = await admitted(call);
        // Whoever has given up meanwhile costs nothing more.
        if (!call.cancelled) new SessionStream(call, features, caller, fail).start();
      })().catch(fail);
    },

    sync: unary(report, async (call: ServerUnaryCall<SyncRequest, SyncResponse>) => {
      const { epoch, messages } = call.request;
      if (messages.length > SYNC_MESSAGES_MAX)
        throw new DomainError('invalid-argument', `${messages.length} messages in one Sync, at most ${SYNC_MESSAGES_MAX} are taken`);
      const first = messages[0]?.message;
      const caller = await (first?.$case === 'hello' ? admitted(call) : identify(call, features.identity, insecure));
      const { deviceId } = caller;
      if (first?.$case === 'hello') {
        const outbox = new Outbox();
        const forget = (): void => void (polled.get(deviceId)?.outbox === outbox && polled.delete(deviceId));
        const transport: Transport = { isOver: false, write: (message) => outbox.add(message), close: forget };
        const session = await DeviceSession.open(features, caller, first.value, transport);
        polled.set(deviceId, { outbox, session });
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
      return { messages: held.outbox.take() };
    }),
  };
}

interface PolledSession {
  readonly session: DeviceSession;
  /** What waits for the device's next Sync. */
  readonly outbox: Outbox;
}

async function enrol(enrolments: EnrolmentService, request: EnrollRequest): Promise<EnrollResponse> {
  const answer = await enrolments.enrol(request);
  const { deviceId, name } = answer;
  return answer.kind === 'pending'
    ? { deviceId, deviceName: name, certificatePem: '', caPem: '', pending: true, retryAfterMs: answer.retryAfterMs }
    : { deviceId, deviceName: name, certificatePem: answer.certificatePem, caPem: answer.caPem, pending: false, retryAfterMs: 0 };
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

/** How long a refused caller should wait, milliseconds. */
export const RETRY_AFTER = 'retry-after-ms';

/** Of a refusal that lasts until an operator does something: the device's standing. */
const STANDING = 'matfleet-standing';

/** Refusals as they are; faults of ours without their inside. */
export function grpcError(error: unknown): Error & { code: status; details: string; metadata?: Metadata } {
  const refusal = error instanceof DomainError ? error : new DomainError('internal', 'the control plane failed to answer; its log says why');
  const answer = Object.assign(new Error(refusal.message), { code: grpcStatusOf(refusal.code) as status, details: refusal.message });
  const metadata = new Metadata();
  if (refusal instanceof TooMany) metadata.set(RETRY_AFTER, String(refusal.retryAfterMs));
  else if (refusal instanceof IdentityRefused) metadata.set(STANDING, refusal.standing);
  else return answer;
  return Object.assign(answer, { metadata });
}
