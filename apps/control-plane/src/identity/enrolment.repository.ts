import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import { inSystem } from '../database/scope.js';
import type { Prisma } from '../generated/prisma/client.js';
import type { Labels } from '../fleet/device-labels.js';
import type { EnrolmentState, EnrolmentView } from './identity.js';
import type { EnrolledDevice, NewDevice } from './new-device.repository.js';

/** What a key asks to become, or may. */
export type Wanted = Omit<NewDevice, 'id'>;

/** Keys that wait, or were announced, at most: beyond that an operator must decide about some. */
const ENROLMENTS_MAX = 100_000;
const SHOWN_MAX = 1_000;
const SELECT = { id: true, publicKeyHash: true, name: true, state: true, labels: true, createdAt: true } as const;
/** Many devices may wait for the audit log's lock at once. */
const PATIENT = { maxWait: 10_000, timeout: 15_000 };

/** Keys on their way to becoming devices. */
@Injectable()
export class EnrolmentRepository {
  private readonly devices = new Batcher<string, (EnrolledDevice & { isNew: boolean }) | null>(async (hashes) => {
    const select = { publicKeyHash: true, id: true, name: true, epoch: true } as const;
    const rows = await this.prisma.device.findMany({ where: { publicKeyHash: { in: [...hashes] } }, select });
    const byHash = new Map(rows.map(({ publicKeyHash, id, name, epoch }) => [publicKeyHash, { id, name, isNew: epoch === 0n }]));
    return hashes.map((hash) => byHash.get(hash) ?? null);
  });
  private readonly enrolments = new Batcher<string, EnrolmentView | null>(async (hashes) => {
    const rows = await this.prisma.enrolment.findMany({ where: { publicKeyHash: { in: [...hashes] } }, select: SELECT });
    const byHash = new Map(rows.map((row) => [row.publicKeyHash, view(row)]));
    return hashes.map((hash) => byHash.get(hash) ?? null);
  });

  private readonly owners = new Batcher<string, string | null>(async (hashes) => {
    const rows = await this.prisma.$queryRaw<{ hash: string; tenantId: string }[]>`
      SELECT public_key_hash AS hash, tenant_id AS "tenantId" FROM devices WHERE public_key_hash = ANY(${hashes})
      UNION ALL SELECT public_key_hash, tenant_id FROM device_keys WHERE public_key_hash = ANY(${hashes})
      UNION ALL SELECT public_key_hash, tenant_id FROM enrolments WHERE public_key_hash = ANY(${hashes})`;
    const byHash = new Map(rows.map(({ hash, tenantId }) => [hash, tenantId]));
    return hashes.map((hash) => byHash.get(hash) ?? null);
  });

  constructor(private readonly prisma: PrismaService) {}

  /** Whose device has, had or wants this key: a key is one device's in the whole installation. Null for a new one. */
  tenantOfKey(publicKeyHash: string): Promise<string | null> {
    return inSystem(() => this.owners.add(publicKeyHash));
  }

  /** The device with this accepted key, and whether it has ever opened a session. */
  deviceByKey(publicKeyHash: string): Promise<(EnrolledDevice & { isNew: boolean }) | null> {
    return this.devices.add(publicKeyHash);
  }

  byKey(publicKeyHash: string): Promise<EnrolmentView | null> {
    return this.enrolments.add(publicKeyHash);
  }

  /** Those that wait first, oldest first within a state; at most 1000. */
  async list(): Promise<EnrolmentView[]> {
    const rows = await this.prisma.enrolment.findMany({ orderBy: [{ state: 'asc' }, { createdAt: 'asc' }], take: SHOWN_MAX, select: SELECT });
    return rows.map(view);
  }

  /** A key that waits for an operator, at the cost of one use of the token. */
  async request(wanted: Wanted, tokenId: string): Promise<EnrolmentView | 'no-uses' | 'full'> {
    return this.add({ ...wanted, state: 'pending' }, 'enrolment.requested', `token:${tokenId}`, tokenId);
  }

  /** A key that is accepted as soon as it asks. */
  async preauthorise(wanted: Wanted, actor: Actor): Promise<EnrolmentView | 'full'> {
    const row = await this.add({ ...wanted, state: 'preauthorised' }, 'enrolment.preauthorised', actor, null);
    if (row === 'no-uses') throw new Error('no token was given');
    return row;
  }

  find(id: string): Promise<EnrolmentView | null> {
    return this.prisma.enrolment.findUnique({ where: { id }, select: SELECT }).then((row) => row && view(row));
  }

  /** Null for an unknown one. */
  async reject(id: string, actor: Actor): Promise<EnrolmentView | null> {
    return this.prisma.$transaction(async (tx) => {
      await tx.$queryRaw`SELECT id FROM enrolments WHERE id = ${id} FOR UPDATE`;
      const row = await tx.enrolment.findUnique({ where: { id }, select: SELECT });
      if (!row) return null;
      if (row.state === 'rejected') return view(row);
      const { publicKeyHash, name, state } = row;
      await tx.enrolment.update({ where: { id }, data: { state: 'rejected' } });
      const entry = { actor, action: 'enrolment.rejected', subject: `enrolment:${id}` } as const;
      await appendAudit(tx, { ...entry, before: { publicKeyHash, name, state }, after: { state: 'rejected' } });
      return view({ ...row, state: 'rejected' });
    }, PATIENT);
  }

  private async add(
    wanted: Wanted & { readonly state: EnrolmentState },
    action: 'enrolment.requested' | 'enrolment.preauthorised',
    actor: Actor,
    tokenId: string | null,
  ): Promise<EnrolmentView | 'no-uses' | 'full'> {
    if ((await this.prisma.enrolment.count({ take: ENROLMENTS_MAX })) >= ENROLMENTS_MAX) return 'full';
    try {
      return await this.prisma.$transaction(async (tx) => {
        if (tokenId !== null && !(await useToken(tx, tokenId))) return 'no-uses';
        const row = await tx.enrolment.create({ data: { id: randomUUID(), ...wanted }, select: SELECT });
        const after = { ...wanted, ...(tokenId !== null && { tokenId }) };
        await appendAudit(tx, { actor, action, subject: `enrolment:${row.id}`, after });
        return view(row);
      }, PATIENT);
    } catch (error) {
      const row = isUniqueViolation(error) && (await this.byKey(wanted.publicKeyHash));
      if (!row) throw error;
      return row;
    }
  }
}

/** Takes one use; false when none is left. Atomic: two devices cannot take the last one. */
async function useToken(tx: Prisma.TransactionClient, id: string): Promise<boolean> {
  const where = { id, usesLeft: { gt: 0 }, revokedAt: null };
  return (await tx.joinToken.updateMany({ where, data: { usesLeft: { decrement: 1 } } })).count === 1;
}

const view = (row: { id: string; publicKeyHash: string; name: string; state: string; labels: unknown; createdAt: Date }): EnrolmentView => ({
  ...row,
  labels: row.labels as Labels,
  state: row.state as EnrolmentState,
});

const isUniqueViolation = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'P2002';
