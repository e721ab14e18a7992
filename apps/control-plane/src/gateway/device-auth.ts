import { createHash, X509Certificate } from 'node:crypto';
import type { ServerSurfaceCall } from '@grpc/grpc-js/build/src/server-call.js';
import { DomainError } from '../errors.js';
import type { FleetService } from '../fleet/fleet.service.js';

/** Names the device on a port without TLS, which exists on loopback only and by an explicit flag. */
export const INSECURE_DEVICE_ID = 'matfleet-device-id';

/** The name that the caller's certificate gives it; our CA signed it (checked by TLS), nothing else is known yet. Asks no database. */
export function claimedName(call: ServerSurfaceCall, insecure: boolean): string {
  if (insecure) {
    const id = call.metadata.get(INSECURE_DEVICE_ID)[0];
    if (typeof id === 'string') return id;
    throw new DomainError('unauthenticated', `the metadata ${INSECURE_DEVICE_ID} names no device of this fleet`);
  }
  const certificate = call.getAuthContext().sslPeerCertificate;
  if (!certificate) throw new DomainError('unauthenticated', 'a client certificate of this fleet is needed: enrol first');
  const name: unknown = certificate.subject.CN;
  if (typeof name !== 'string') throw new DomainError('unauthenticated', 'the client certificate names no device');
  return name;
}

/**
 * Who calls: the common name of a client certificate that our CA signed (checked by TLS) and whose key is the one the device enrolled with.
 * A removed device is unknown here, so its certificate is refused although it has not expired.
 */
export async function identify(call: ServerSurfaceCall, fleet: FleetService, insecure: boolean): Promise<string> {
  const name = claimedName(call, insecure);
  const known = await fleet.keyHashOf(name);
  if (known === null && insecure) throw new DomainError('unauthenticated', `the metadata ${INSECURE_DEVICE_ID} names no device of this fleet`);
  if (known === null) throw new DomainError('permission-denied', `device ${name.slice(0, 64)} is not part of this fleet (any more)`);
  if (insecure) return name;
  const spki = new X509Certificate(call.getAuthContext().sslPeerCertificate!.raw).publicKey.export({ type: 'spki', format: 'der' });
  if (createHash('sha256').update(spki).digest('hex') !== known)
    throw new DomainError('permission-denied', `the client certificate does not carry the key of device ${name}`);
  return name;
}
