import { createHash, X509Certificate } from 'node:crypto';
import type { ServerSurfaceCall } from '@grpc/grpc-js/build/src/server-call.js';
import { DomainError } from '../errors.js';
import { DEFAULT_TENANT, inTenant } from '../database/scope.js';
import { renewalDueMs, TENANT_URI } from '../identity/certificate-authority.js';
import type { Admitted } from '../identity/identity.js';
import type { IdentityService } from '../identity/identity.service.js';

/** Names the device on a port without TLS, which exists on loopback only and by an explicit flag. */
export const INSECURE_DEVICE_ID = 'matfleet-device-id';

export interface Caller extends Admitted {
  /** Until the certificate of this connection should be renewed, on our clock; null where there is none. */
  readonly renewInMs: number | null;
}

/** What a connection proved: the common name and tenant of a client certificate that our CA signed (checked by TLS) and that holds now, and its key. */
export interface ProvenKey {
  readonly deviceId: string;
  readonly tenantId: string;
  readonly publicKeyHash: string;
  readonly renewInMs: number;
}

export function provenKey(call: ServerSurfaceCall): ProvenKey {
  const deviceId = claimedName(call, false);
  const certificate = new X509Certificate(call.getAuthContext().sslPeerCertificate!.raw);
  const spki = certificate.publicKey.export({ type: 'spki', format: 'der' });
  const due = renewalDueMs({ notBefore: new Date(certificate.validFrom), notAfter: new Date(certificate.validTo) });
  return {
    deviceId,
    tenantId: tenantOf(certificate),
    publicKeyHash: createHash('sha256').update(spki).digest('hex'),
    renewInMs: Math.max(0, Math.round(due - Date.now())),
  };
}

/** Certificates of before there were tenants name none. */
const tenantOf = ({ subjectAltName }: X509Certificate): string =>
  subjectAltName
    ?.split(', ')
    .find((name) => name.startsWith(`URI:${TENANT_URI}`))
    ?.slice(`URI:${TENANT_URI}`.length) ?? DEFAULT_TENANT;

/** The name that the caller's certificate gives it; our CA signed it (checked by TLS), nothing else is known yet. Asks no database. */
export function claimedName(call: ServerSurfaceCall, insecure: boolean): string {
  if (insecure) {
    const id = call.metadata.get(INSECURE_DEVICE_ID)[0];
    if (typeof id === 'string') return id;
    throw new DomainError('unauthenticated', `the metadata ${INSECURE_DEVICE_ID} names no device of this fleet`);
  }
  const certificate = call.getAuthContext().sslPeerCertificate;
  if (!certificate) throw new DomainError('unauthenticated', 'a client certificate of this fleet that has not expired is needed: enrol first');
  const name: unknown = certificate.subject.CN;
  if (typeof name !== 'string') throw new DomainError('unauthenticated', 'the client certificate names no device');
  return name;
}

/** Who calls, when that device may: not one that was revoked, decommissioned or is in quarantine, although its certificate still holds. */
export async function identify(call: ServerSurfaceCall, identity: IdentityService, insecure: boolean): Promise<Caller> {
  if (insecure) return { ...(await identity.admitUnproven(claimedName(call, true))), renewInMs: null };
  const { deviceId, tenantId, publicKeyHash, renewInMs } = provenKey(call);
  return { ...(await inTenant(tenantId, () => identity.admit(deviceId, publicKeyHash))), renewInMs };
}
