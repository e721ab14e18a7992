import { randomUUID } from 'node:crypto';
import { Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { currentTenant, inTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Authority } from './authority.js';
import { type DeviceCertificateRequest, readCertificateRequest } from './certificate-authority.js';
import { EnrolmentRepository } from './enrolment.repository.js';
import type { Labels } from '../fleet/device-labels.js';
import { deviceName, type EnrolmentView, IdentityRefused } from './identity.js';
import { IdentityRepository } from './identity.repository.js';
import { JoinTokenService, type OpenJoinToken } from './join-token.service.js';
import { type EnrolledDevice, type NewDevice, NewDeviceRepository } from './new-device.repository.js';

/** What a device that enrols is told. */
export type EnrolmentAnswer =
  | { readonly kind: 'accepted'; readonly deviceId: string; readonly name: string; readonly certificatePem: string; readonly caPem: string }
  | { readonly kind: 'pending'; readonly deviceId: string; readonly name: string; readonly retryAfterMs: number };

/** A key that an operator announces. Without a name the device brings its own. */
export interface PreauthorisedKey {
  readonly publicKeyHash: string;
  readonly name?: string | undefined;
  readonly labels?: Labels | undefined;
}

const PENDING_RETRY_MS = 5_000;
const CREATE_TRIES = 3;

/** How a key becomes a device, and how a device gets its next certificate. */
@Injectable()
export class EnrolmentService {
  private readonly log = new Logger('identity');

  constructor(
    private readonly enrolments: EnrolmentRepository,
    private readonly newDevices: NewDeviceRepository,
    private readonly identities: IdentityRepository,
    private readonly tokens: JoinTokenService,
    private readonly authority: Authority,
    private readonly events: FleetEvents,
  ) {}

  /** Answers the same for the same key, so that a device that lost the answer, or waits for an operator, may ask again. */
  async enrol(request: { token: string; csrPem: string; deviceName: string }): Promise<EnrolmentAnswer> {
    const token = await this.tokens.findOpen(request.token);
    // A key is looked at without a token only where it may be one that an operator has to decide about, or has just accepted.
    const csr = await readCertificateRequest(request.csrPem);
    const owner = await this.enrolments.tenantOfKey(csr.publicKeyHash);
    const tenantId = token?.tenantId ?? owner;
    if (tenantId === null) throw noToken();
    if (token && owner !== null && owner !== token.tenantId)
      throw new DomainError(
        'permission-denied',
        `the key ${csr.publicKeyHash.slice(0, 12)}… is known already, and not where this join token is from`,
      );
    return inTenant(tenantId, () => this.enrolHere(csr, token, request.deviceName));
  }

  private async enrolHere(csr: DeviceCertificateRequest, token: OpenJoinToken | null, wantedName: string): Promise<EnrolmentAnswer> {
    const known = await this.known(csr, token !== null);
    if (known) return known;
    if (!token) throw noToken();
    const announced = await this.enrolments.byKey(csr.publicKeyHash);
    const name = deviceName(announced?.name || wantedName);
    if (announced || token.mode === 'auto') {
      const labels = { ...token.labels, ...announced?.labels };
      const device = { id: announced?.id ?? randomUUID(), publicKeyHash: csr.publicKeyHash, name, labels };
      return this.certify(csr, await this.create(device, token.id, `token:${token.id}`));
    }
    return this.askOperator(csr, name, token);
  }

  /** The next certificate of a device that proved its accepted key, for the same key or for a new one. */
  async renew(deviceId: string, csrPem: string): Promise<{ certificatePem: string; renewInMs: number }> {
    const csr = await readCertificateRequest(csrPem);
    const device = await this.identities.find(deviceId);
    if (device?.standing !== 'accepted') throw new IdentityRefused('unknown', `device ${deviceId} is not part of this fleet any more`);
    if (csr.publicKeyHash !== device.publicKeyHash) {
      const key = await this.identities.key(csr.publicKeyHash);
      const isOffered = key?.deviceId === deviceId && key.state === 'offered';
      if (!isOffered && !(await this.identities.offerKey(deviceId, csr.publicKeyHash, `device:${deviceId}`)))
        throw new DomainError('already-exists', `the new key ${csr.publicKeyHash.slice(0, 12)}… is or was a device's already`);
    }
    const certificatePem = await this.authority.issueDevice(csr, deviceId);
    return { certificatePem, renewInMs: Math.round((this.authority.deviceLifeMs * 2) / 3) };
  }

  /** Makes the device that waits; also one that was rejected before. */
  async accept(id: string, actor: Actor): Promise<EnrolledDevice> {
    const enrolment = await this.require(id);
    return this.create(enrolment, null, actor);
  }

  async reject(id: string, actor: Actor): Promise<EnrolmentView> {
    const enrolment = await this.enrolments.reject(id, actor);
    if (!enrolment) throw notWaiting(id);
    return enrolment;
  }

  /** A device with this key is accepted as soon as it comes with any join token. */
  async preauthorise({ publicKeyHash, name = '', labels = {} }: PreauthorisedKey, actor: Actor): Promise<EnrolmentView> {
    const owner = await this.enrolments.tenantOfKey(publicKeyHash);
    const existing = owner === currentTenant() ? await this.enrolments.byKey(publicKeyHash) : null;
    if (owner !== null)
      throw new DomainError(
        'already-exists',
        existing
          ? `the key ${publicKeyHash.slice(0, 12)}… is ${existing.state} already, as enrolment ${existing.id}`
          : `the key ${publicKeyHash.slice(0, 12)}… is or was a device's already`,
      );
    const enrolment = await this.enrolments.preauthorise({ publicKeyHash, name: name === '' ? '' : deviceName(name), labels }, actor);
    if (enrolment === 'full') throw full();
    return enrolment;
  }

  list(): Promise<EnrolmentView[]> {
    return this.enrolments.list();
  }

  /** What this key is already, if it need not ask any more. */
  private async known(csr: DeviceCertificateRequest, hasToken: boolean): Promise<EnrolmentAnswer | undefined> {
    const device = await this.enrolments.deviceByKey(csr.publicKeyHash);
    // The first certificate may be fetched after the token has ended: an operator took the time to decide.
    if (device && (hasToken || device.isNew)) {
      const { standing } = (await this.identities.find(device.id)) ?? { standing: 'revoked' as const };
      if (standing !== 'accepted') throw new IdentityRefused(standing, `device ${device.name} may not enrol: it is ${standing}`);
      return this.certify(csr, device);
    }
    const key = await this.identities.key(csr.publicKeyHash);
    if (key?.state === 'retired')
      throw new IdentityRefused('key-retired', `this key is retired: device ${key.deviceId} was decommissioned or has another key`);
    if (key && hasToken) {
      const owner = await this.identities.find(key.deviceId);
      if (owner?.standing === 'accepted') return this.certify(csr, { id: key.deviceId, name: owner.name });
    }
    const enrolment = await this.enrolments.byKey(csr.publicKeyHash);
    if (enrolment?.state === 'pending') return pending(enrolment);
    if (enrolment?.state === 'rejected')
      throw new DomainError('permission-denied', `an operator has rejected this device (enrolment ${enrolment.id})`);
    return undefined;
  }

  private async askOperator(csr: DeviceCertificateRequest, name: string, token: OpenJoinToken): Promise<EnrolmentAnswer> {
    if (token.mode === 'preauthorised')
      throw new DomainError('permission-denied', `this join token is for announced keys only, and nobody has announced ${csr.publicKeyHash}`);
    const enrolment = await this.enrolments.request({ publicKeyHash: csr.publicKeyHash, name, labels: token.labels }, token.id);
    if (enrolment === 'full') throw full();
    if (enrolment === 'no-uses') throw noUses();
    this.log.log(`${name} waits for an operator: enrolment ${enrolment.id}, key ${csr.publicKeyHash}`);
    return pending(enrolment);
  }

  private async create({ id, publicKeyHash, name, labels }: NewDevice, tokenId: string | null, actor: Actor): Promise<EnrolledDevice> {
    for (let tries = 0; tries < CREATE_TRIES; tries++) {
      const made = await this.newDevices.create({ id, publicKeyHash, name, labels }, tokenId, actor);
      if (made instanceof DomainError) throw made;
      if (made === 'no-uses') throw noUses();
      if (made !== 'known') {
        this.log.log(`device ${made.name} (${made.id}) enrolled`);
        this.events.emit({ kind: 'device-changed', deviceId: made.id });
        return made;
      }
      // The key was it, or else the name: then there is another one.
      const existing = await this.enrolments.deviceByKey(publicKeyHash);
      if (existing) return existing;
    }
    throw new DomainError('unavailable', `other devices took the name ${name} ${CREATE_TRIES} times meanwhile: ask again`);
  }

  private async certify(csr: DeviceCertificateRequest, { id, name }: EnrolledDevice): Promise<EnrolmentAnswer> {
    const certificatePem = await this.authority.issueDevice(csr, id);
    return { kind: 'accepted', deviceId: id, name, certificatePem, caPem: this.authority.ca.certificatePem };
  }

  private async require(id: string): Promise<EnrolmentView> {
    const enrolment = await this.enrolments.find(id);
    if (!enrolment) throw notWaiting(id);
    return { ...enrolment, name: enrolment.name || 'device' };
  }
}

const pending = ({ id, name }: EnrolmentView): EnrolmentAnswer => ({ kind: 'pending', deviceId: id, name, retryAfterMs: PENDING_RETRY_MS });
const noToken = (): DomainError => new DomainError('permission-denied', 'the join token is unknown or has expired, or was revoked');
const notWaiting = (id: string): DomainError => new DomainError('not-found', `no device waits as enrolment ${id.slice(0, 64)}`);
const noUses = (): DomainError => new DomainError('permission-denied', 'the join token has no uses left');
const full = (): DomainError => new DomainError('resource-exhausted', 'too many devices wait for an operator: accept or reject some first');
