import { status, type ServerWritableStream } from '@grpc/grpc-js';
import type { ReplicaServiceServer, RunAttemptRequest, RunAttemptResponse } from '@matfleet/protocol';
import { openSpan } from '@matfleet/tracing';
import { REPLICA_NAME } from '../identity/certificate-authority.js';
import { DomainError } from '../errors.js';
import type { DeviceLinks } from '../fleet/device-links.js';
import type { AttemptHub } from '../inference/attempt-hub.js';
import { grpcError } from './device-service.js';
import { inferenceEventOf, inferenceStartOf } from './wire.js';

/** Events that may wait for a replica that does not read them. */
const OUTBOUND_MAX = 10_000;

/** Attempts that another replica runs on a device whose session is here. */
export function peerService(links: DeviceLinks, hub: AttemptHub, insecure: boolean): ReplicaServiceServer {
  return {
    runAttempt: (call) => {
      try {
        if (!insecure) identifyReplica(call);
        const [parent] = call.metadata.get('traceparent');
        const span = openSpan('replica RunAttempt', {
          kind: 'server',
          parent: parent?.toString(),
          attributes: { 'matfleet.device.id': call.request.deviceId },
        });
        call.once('close', () => span.end());
        span.run(() => relay(call, links, hub));
      } catch (error) {
        call.emit('error', grpcError(error));
      }
    },
  };
}

function relay(call: ServerWritableStream<RunAttemptRequest, RunAttemptResponse>, links: DeviceLinks, hub: AttemptHub): void {
  const { deviceId, epoch } = call.request;
  const start = inferenceStartOf(call.request.start);
  const link = links.get(deviceId);
  if (link?.epoch !== epoch) throw new DomainError('unavailable', `the session of epoch ${epoch} is not here`);
  const { attemptId } = start;
  let sequence = 0n;
  const end = (): void => {
    stopListening();
    call.end();
  };
  const stopListening = hub.listen(attemptId, { deviceId, epoch }, (event) => {
    if (event.kind === 'lost') {
      stopListening();
      call.emit('error', Object.assign(new Error(event.reason), { code: status.UNAVAILABLE, details: event.reason }));
      return;
    }
    if (call.writableLength >= OUTBOUND_MAX) call.destroy();
    else call.write({ event: inferenceEventOf(attemptId, ++sequence, event) });
    if (event.kind === 'finished' || event.kind === 'failed') end();
  });
  call.once('cancelled', () => {
    stopListening();
    link.send({ kind: 'cancel-inference', attemptId });
  });
  if (link.send({ kind: 'start-inference', start })) return;
  stopListening();
  throw new DomainError('unavailable', 'the device does not take more now');
}

function identifyReplica(call: ServerWritableStream<RunAttemptRequest, RunAttemptResponse>): void {
  if (call.getAuthContext().sslPeerCertificate?.subject.CN !== REPLICA_NAME)
    throw new DomainError('permission-denied', 'a certificate of a replica of this control plane is needed');
}
