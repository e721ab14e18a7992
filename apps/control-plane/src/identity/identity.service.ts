import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { CONFIG, type Config } from '../config.js';
import { inSystem, inTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { DeviceLinks } from '../fleet/device-links.js';
import { FleetService } from '../fleet/fleet.service.js';
import { NudgeService } from '../replicas/nudges.js';
import { type Admitted, type DeviceKeyView, IdentityRefused, type Standing, type StandingView, type TombstoneView } from './identity.js';
import { type IdentityRow, IdentityRepository } from './identity.repository.js';

/** How long after a decision of another replica, whose nudge was lost, the sessions here end. */
const SWEEP_MS = 2_000;
/** What a sweep looks back over, beyond the last one that succeeded. */
const LOOK_BACK_MS = 60_000;
/** How long a session that was taken back counts against a device. */
const CLONE_WINDOW_MS = 10 * 60_000;

/** Calls with the last key may still be under way when the next one is first used: that is no copied disk. */
const CHANGE_OVER_MS = 10 * 60_000;

/** Whether a device that proved its key may go on, and the operators' decisions about that. */
@Injectable()
export class IdentityService implements OnModuleInit, OnModuleDestroy {
  private readonly log = new Logger('identity');
  private timer: NodeJS.Timeout | undefined;
  private sweptAtMs = performance.now();

  constructor(
    private readonly identities: IdentityRepository,
    private readonly fleet: FleetService,
    private readonly links: DeviceLinks,
    private readonly events: FleetEvents,
    private readonly nudges: NudgeService,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  onModuleInit(): void {
    this.timer = setInterval(() => void inSystem(() => this.sweep()).catch((error: unknown) => this.log.error(error)), SWEEP_MS);
    this.timer.unref();
    this.nudges.on('standing', (deviceId) => {
      if (this.links.get(deviceId)) void this.expel(deviceId).catch((error: unknown) => this.log.error(error));
    });
  }

  onModuleDestroy(): void {
    clearInterval(this.timer);
  }

  /** Lets in the device whose connection proved this key, or says why not. The first use of an offered key makes it the accepted one. */
  async admit(deviceId: string, publicKeyHash: string): Promise<Admitted> {
    let device = await this.identities.find(deviceId);
    if (!device) throw await this.gone(deviceId, publicKeyHash);
    if (device.publicKeyHash !== publicKeyHash) device = await this.tryKey(deviceId, device, publicKeyHash);
    if (device.standing !== 'accepted') throw refusal(device.standing, deviceId, device);
    return { deviceId, tenantId: device.tenantId, bootId: device.boots?.current ?? null };
  }

  /** Asked again in the course of something long: whether the device that was admitted still may. */
  async readmit(deviceId: string): Promise<void> {
    const device = await this.identities.find(deviceId);
    if (!device) throw await this.goneByOperator(deviceId);
    if (device.standing !== 'accepted') throw refusal(device.standing, deviceId, device);
  }

  /** For a connection that proved nothing, on the port that asks for nothing. */
  async admitUnproven(deviceId: string): Promise<Admitted> {
    const device = await inSystem(() => this.identities.find(deviceId));
    if (!device) throw new DomainError('unauthenticated', `there is no device ${deviceId.slice(0, 64)}`);
    return inTenant(device.tenantId, () => this.admit(deviceId, device.publicKeyHash));
  }

  /** Called at Hello: refuses the device when this shows that two machines use its identity. */
  async boot({ deviceId, bootId: before }: Admitted, bootId: string): Promise<void> {
    if (before === bootId) return;
    const clone = await this.identities.boot(deviceId, bootId, Math.max(CLONE_WINDOW_MS, 20 * this.config.leaseMs));
    if (clone === null) return;
    this.log.warn(`device ${deviceId} is in quarantine: ${clone}`);
    await this.expelEverywhere(deviceId);
    throw refusal('quarantined', deviceId, { standingReason: clone });
  }

  revoke(deviceId: string, reason: string, actor: Actor): Promise<StandingView> {
    return this.setStanding(deviceId, 'revoked', reason, actor);
  }

  /** Out of quarantine, or back from a revocation. */
  release(deviceId: string, actor: Actor): Promise<StandingView> {
    return this.setStanding(deviceId, 'accepted', null, actor);
  }

  /** Takes the device out of the fleet for good. */
  async decommission(deviceId: string, options: { wipe: boolean; reason: string }, actor: Actor): Promise<TombstoneView> {
    const tombstone = await this.identities.decommission(deviceId, options, actor);
    if (!tombstone) throw new DomainError('not-found', `there is no device ${deviceId.slice(0, 64)}`);
    await this.expelEverywhere(deviceId);
    return tombstone;
  }

  /** The device, which proved its key, has removed its models and is about to remove its keys. */
  async wiped(deviceId: string, publicKeyHash: string): Promise<void> {
    const [tombstone, key] = await Promise.all([this.identities.tombstone(deviceId), this.identities.key(publicKeyHash)]);
    if (!tombstone?.wipe || key?.deviceId !== deviceId) throw new DomainError('failed-precondition', `device ${deviceId} was not told to wipe`);
    await this.identities.wiped(deviceId);
    this.log.log(`device ${tombstone.name} (${deviceId}) has removed its models and keys`);
  }

  tombstones(): Promise<TombstoneView[]> {
    return this.identities.tombstones();
  }

  /** The accepted key first, the others newest first. */
  async keys(deviceId: string): Promise<DeviceKeyView[]> {
    const keys = await this.identities.keys(deviceId);
    if (keys.length === 0) throw new DomainError('not-found', `there is no device ${deviceId.slice(0, 64)}`);
    return keys;
  }

  /** Lets the device come with another key, for example after its disk was replaced. */
  async offerKey(deviceId: string, publicKeyHash: string, actor: Actor): Promise<DeviceKeyView[]> {
    if (!(await this.identities.find(deviceId))) throw new DomainError('not-found', `there is no device ${deviceId.slice(0, 64)}`);
    if (!(await this.identities.offerKey(deviceId, publicKeyHash, actor)))
      throw new DomainError('already-exists', `the key ${publicKeyHash.slice(0, 12)}… is or was a device's already`);
    return this.keys(deviceId);
  }

  private async setStanding(deviceId: string, standing: Standing, reason: string | null, actor: Actor): Promise<StandingView> {
    const view = await this.identities.setStanding(deviceId, standing, reason, actor);
    if (!view) throw new DomainError('not-found', `there is no device ${deviceId.slice(0, 64)}`);
    if (standing === 'accepted') this.events.emit({ kind: 'device-changed', deviceId });
    else await this.expelEverywhere(deviceId);
    return view;
  }

  private async tryKey(deviceId: string, device: IdentityRow, publicKeyHash: string): Promise<IdentityRow> {
    const key = await this.identities.key(publicKeyHash);
    if (key?.deviceId !== deviceId) throw new IdentityRefused('unknown', `the client certificate does not carry a key of device ${device.name}`);
    if (key.state === 'retired') {
      if (!key.reusedAt && Date.now() - key.createdAt.getTime() > CHANGE_OVER_MS) await this.identities.noteRetiredUse(deviceId, publicKeyHash);
      throw new IdentityRefused(
        'key-retired',
        `this key of device ${device.name} was replaced: its disk is an older copy; enrol again with a new key`,
      );
    }
    if (device.standing === 'accepted') await this.identities.acceptKey(deviceId, publicKeyHash);
    return device;
  }

  private async gone(deviceId: string, publicKeyHash: string): Promise<IdentityRefused> {
    const [tombstone, key] = await Promise.all([this.identities.tombstone(deviceId), this.identities.key(publicKeyHash)]);
    if (!tombstone || key?.deviceId !== deviceId)
      return new IdentityRefused('unknown', `device ${deviceId.slice(0, 64)} is not part of this fleet (any more)`);
    const { name, createdAt, reason, wipe } = tombstone;
    return new IdentityRefused(
      wipe ? 'wipe' : 'decommissioned',
      `device ${name} was decommissioned at ${createdAt.toISOString()} (${reason}): it is not part of this fleet any more`,
    );
  }

  private async expelEverywhere(deviceId: string): Promise<void> {
    this.nudges.tell({ kind: 'standing', deviceId });
    await this.expel(deviceId);
  }

  /** Ends the device's session here, with the reason that a new one would get. */
  private async expel(deviceId: string): Promise<void> {
    const device = await this.identities.find(deviceId);
    if (device?.standing === 'accepted') return; // Released since.
    if (!device) this.fleet.forget(deviceId);
    const link = this.links.get(deviceId);
    if (link) {
      const why = device ? refusal(device.standing, deviceId, device) : await this.goneByOperator(deviceId);
      link.close(why.message, why);
    }
    this.events.emit({ kind: 'device-changed', deviceId });
  }

  /** The session that is open has proved the key already. */
  private async goneByOperator(deviceId: string): Promise<IdentityRefused> {
    const [key] = await this.identities.keys(deviceId);
    return this.gone(deviceId, key?.publicKeyHash ?? '');
  }

  /** What another replica decided, and what a connection slipped past while it was decided here. */
  private async sweep(): Promise<void> {
    const startedAtMs = performance.now();
    if (this.links.count > 0)
      for (const { deviceId } of await this.identities.refusedSince(startedAtMs - this.sweptAtMs + LOOK_BACK_MS))
        if (this.links.get(deviceId)) await this.expel(deviceId);
    this.sweptAtMs = startedAtMs;
  }
}

const refusal = (standing: Standing, deviceId: string, device: { name?: string; standingReason: string | null }): IdentityRefused => {
  const state = standing === 'quarantined' ? 'quarantined' : 'revoked';
  const what = state === 'quarantined' ? 'is in quarantine until an operator releases it' : 'was revoked';
  return new IdentityRefused(state, `device ${device.name ?? deviceId} ${what}: ${device.standingReason ?? 'no reason was given'}`);
};
