import { Injectable } from '@nestjs/common';
import type { Actor, AuditEntry } from '../audit/audit.js';
import { appendAudits } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import type { Prisma } from '../generated/prisma/client.js';
import { DomainError } from '../errors.js';
import { overQuota, quotaHere } from '../tenancy/quota.repository.js';
import type { Labels } from '../fleet/device-labels.js';

export interface NewDevice {
  readonly id: string;
  readonly publicKeyHash: string;
  /** Made unique by a number. */
  readonly name: string;
  readonly labels: Labels;
}

export interface EnrolledDevice {
  readonly id: string;
  readonly name: string;
}

/** An error: the tenant has as many devices as it may. 'no-uses': the token has none left. 'known': somebody else made something of this key, or took this name, meanwhile. */
export type Creation = EnrolledDevice | 'no-uses' | 'known' | DomainError;

interface Wanted {
  readonly device: NewDevice;
  readonly tokenId: string | null;
  readonly actor: Actor;
}

const NAME_TRIES_MAX = 10_000;
/** Many may wait for the audit log's lock at once. */
const PATIENT = { maxWait: 10_000, timeout: 15_000 };

/** Makes devices of keys. A fleet that enrols at once shares its transactions: each of them holds the token's row and the audit log's lock. */
@Injectable()
export class NewDeviceRepository {
  private readonly creations = new Batcher<Wanted, Creation>(
    (wanted) => this.createAll(wanted),
    ({ device }) => device.publicKeyHash,
  );

  constructor(private readonly prisma: PrismaService) {}

  /** At the cost of one use of the token where one is given. Removes the enrolment that the device was. */
  create(device: NewDevice, tokenId: string | null, actor: Actor): Promise<Creation> {
    return this.creations.add({ device, tokenId, actor });
  }

  private createAll(wanted: readonly Wanted[]): Promise<Creation[]> {
    return this.prisma.$transaction(async (tx) => {
      const withUses = await this.admitted(tx, wanted);
      const most = await quotaHere(tx, 'devicesMax');
      const present = most === null ? 0 : await tx.device.count();
      const admitted = most === null ? withUses : withUses.slice(0, Math.max(0, most - present));
      const names = await freeNames(tx, admitted);
      const ids = admitted.map(({ device }) => device.id);
      const enrolments = await tx.enrolment.findMany({ where: { id: { in: ids } }, select: { id: true } });
      if (enrolments.length > 0) await tx.enrolment.deleteMany({ where: { id: { in: ids } } });
      const made = await tx.device.createManyAndReturn({
        data: admitted.map(({ device }) => ({ ...device, name: names.get(device.id)! })),
        // A key or a name that another replica took since: it says so, and the others' transaction goes on.
        skipDuplicates: true,
        select: { id: true, name: true },
      });
      const devices = new Map(made.map((device) => [device.id, device]));
      const created = admitted.filter(({ device }) => devices.has(device.id));
      for (const [id, uses] of usesOf(created)) await tx.joinToken.update({ where: { id }, data: { usesLeft: { decrement: uses } } });
      const waited = new Set(enrolments.map(({ id }) => id));
      await appendAudits(
        tx,
        created.map(({ device, tokenId, actor }): AuditEntry => ({
          actor,
          action: 'device.enrolled',
          subject: `device:${device.id}`,
          before: waited.has(device.id) ? { enrolment: device.id } : null,
          after: { name: names.get(device.id), publicKeyHash: device.publicKeyHash, labels: device.labels, ...(tokenId !== null && { tokenId }) },
        })),
      );
      const [hasUses, isAdmitted] = [new Set(withUses), new Set(admitted)];
      const over = overQuotaOf(most ?? 0, present);
      return wanted.map((one) => (isAdmitted.has(one) ? (devices.get(one.device.id) ?? 'known') : hasUses.has(one) ? over : 'no-uses'));
    }, PATIENT);
  }

  /** Those for whom their token has a use left, first come first served. The tokens are locked: two replicas cannot take the last one. */
  private async admitted(tx: Prisma.TransactionClient, wanted: readonly Wanted[]): Promise<Wanted[]> {
    const tokenIds = [...usesOf(wanted).keys()];
    const tokens =
      tokenIds.length === 0
        ? []
        : await tx.$queryRaw<{ id: string; uses: number }[]>`
            SELECT id, uses_left AS uses FROM join_tokens WHERE id = ANY(${tokenIds}) AND revoked_at IS NULL ORDER BY id FOR UPDATE`;
    const uses = new Map(tokens.map((token) => [token.id, token.uses]));
    return wanted.filter(({ tokenId }) => {
      if (tokenId === null) return true;
      const left = uses.get(tokenId) ?? 0;
      uses.set(tokenId, left - 1);
      return left > 0;
    });
  }
}

const overQuotaOf = (most: number, present: number): DomainError => overQuota('devices', present + 1, most);

/** By token. */
const usesOf = (wanted: readonly Wanted[]): Map<string, number> => {
  const counts = new Map<string, number>();
  for (const { tokenId } of wanted) if (tokenId !== null) counts.set(tokenId, (counts.get(tokenId) ?? 0) + 1);
  return counts;
};

/** A name that nobody has for each device, by its id: its own, or that with the lowest number that is free. */
async function freeNames(tx: Prisma.TransactionClient, wanted: readonly Wanted[]): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  const reserved = new Set<string>();
  const tries = new Map<NewDevice, number>();
  const next = (device: NewDevice): { device: NewDevice; name: string } => {
    for (let number = (tries.get(device) ?? 0) + 1; number <= NAME_TRIES_MAX; number++) {
      const name = number === 1 ? device.name : `${device.name}-${number}`;
      if (reserved.has(name)) continue;
      reserved.add(name);
      tries.set(device, number);
      return { device, name };
    }
    throw new Error(`${NAME_TRIES_MAX} devices are called ${device.name} already`);
  };
  let candidates = wanted.map(({ device }) => next(device));
  while (candidates.length > 0) {
    const rows = await tx.device.findMany({ where: { name: { in: candidates.map(({ name }) => name) } }, select: { name: true } });
    const taken = new Set(rows.map(({ name }) => name));
    for (const { device, name } of candidates) if (!taken.has(name)) names.set(device.id, name);
    candidates = candidates.filter(({ name }) => taken.has(name)).map(({ device }) => next(device));
  }
  return names;
}
