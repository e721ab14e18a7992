import { Injectable } from '@nestjs/common';
import { auditHash, type AuditHead, type AuditRecord, GENESIS } from '@matfleet/history';
import { PrismaService } from '../database/prisma.service.js';
import type { AuditRecord as Row, Prisma } from '../generated/prisma/client.js';
import type { AuditEntry } from './audit.js';

/** Any constant serves; it only has to be the same in every replica. */
const LOCK_KEY = 5_316_911_784n;

/** The audit log in PostgreSQL. There is no way to change or remove a record: a trigger refuses it. */
@Injectable()
export class AuditRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Newest first, those before record `before`. */
  async newest(limit: number, { before, subject }: { before?: number | undefined; subject?: string | undefined }): Promise<AuditRecord[]> {
    const where = { ...(before !== undefined && { sequence: { lt: BigInt(before) } }), ...(subject !== undefined && { subject }) };
    return (await this.prisma.auditRecord.findMany({ where, orderBy: { sequence: 'desc' }, take: limit })).map(record);
  }

  /** Oldest first, those after record `after`: what an export reads. */
  async since(limit: number, after: number): Promise<AuditRecord[]> {
    const where = { sequence: { gt: BigInt(after) } };
    return (await this.prisma.auditRecord.findMany({ where, orderBy: { sequence: 'asc' }, take: limit })).map(record);
  }

  async head(): Promise<AuditHead> {
    const row = await this.prisma.auditRecord.findFirst({ orderBy: { sequence: 'desc' }, select: { sequence: true, hash: true } });
    return row ? { sequence: Number(row.sequence), hash: row.hash } : { sequence: 0, hash: GENESIS };
  }
}

/**
 * Appends in the transaction of the change itself, so that there is neither a change without its record nor a record without its change.
 * Records are written one transaction at a time: make this the last statement, what comes after it holds everybody up.
 */
export async function appendAudit(tx: Prisma.TransactionClient, entry: AuditEntry): Promise<void> {
  await tx.$executeRaw`SELECT pg_advisory_xact_lock(${LOCK_KEY})`;
  const last = await tx.auditRecord.findFirst({ orderBy: { sequence: 'desc' }, select: { sequence: true, hash: true } });
  const { before = null, after = null } = entry;
  const at = new Date();
  const content = {
    sequence: Number(last?.sequence ?? 0n) + 1,
    at: at.toISOString(),
    actor: entry.actor,
    action: entry.action,
    subject: entry.subject,
    before: storable(before),
    after: storable(after),
    previous: last?.hash ?? GENESIS,
  };
  await tx.auditRecord.create({
    data: {
      sequence: BigInt(content.sequence),
      at,
      actor: content.actor,
      action: content.action,
      subject: content.subject,
      previous: content.previous,
      hash: auditHash(content),
      ...(content.before !== null && { before: content.before as Prisma.InputJsonValue }),
      ...(content.after !== null && { after: content.after as Prisma.InputJsonValue }),
    },
  });
}

const record = (row: Row): AuditRecord => ({
  sequence: Number(row.sequence),
  at: row.at.toISOString(),
  actor: row.actor,
  action: row.action,
  subject: row.subject,
  before: row.before as AuditRecord['before'],
  after: row.after as AuditRecord['after'],
  previous: row.previous,
  hash: row.hash,
});

/** As PostgreSQL gives it back: dates as text, no character 0, which jsonb cannot hold. */
const storable = (value: unknown): AuditRecord['before'] =>
  JSON.parse(
    JSON.stringify(value, (_key, item: unknown) => (typeof item === 'string' ? item.replaceAll('\u0000', '') : item)),
  ) as AuditRecord['before'];
