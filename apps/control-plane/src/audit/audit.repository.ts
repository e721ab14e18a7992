import { Injectable } from '@nestjs/common';
import { auditHash, type AuditHead, type AuditRecord, GENESIS } from '@matfleet/history';
import { PrismaService } from '../database/prisma.service.js';
import { currentTenant } from '../database/scope.js';
import type { AuditRecord as Row, Prisma } from '../generated/prisma/client.js';
import type { TimelineKind } from '../timeline/timeline.js';
import type { AuditEntry } from './audit.js';

/** With the tenant's hash a lock of its own. Any constant serves; it only has to be the same in every replica. */
const LOCK_CLASS = 531_691_178;

/** The audit log in PostgreSQL. There is no way to change or remove a record: a trigger refuses it. */
@Injectable()
export class AuditRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** For what is no change of a row: a decision that was asked for, a file that was made. */
  append(entry: AuditEntry): Promise<void> {
    return this.prisma.$transaction((tx) => appendAudit(tx, entry));
  }

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
 * Each tenant has a chain of its own. Its records are written one transaction at a time: make this the last statement, what comes after it holds
 * everybody up.
 */
export const appendAudit = (tx: Prisma.TransactionClient, entry: AuditEntry): Promise<void> => appendAudits(tx, [entry]);

/** As `appendAudit`, for a transaction that changes many things. */
export async function appendAudits(tx: Prisma.TransactionClient, entries: readonly AuditEntry[]): Promise<void> {
  if (entries.length === 0) return;
  const tenantId = currentTenant();
  await tx.$executeRaw`SELECT pg_advisory_xact_lock(${LOCK_CLASS}::int, hashtext(${tenantId}))`;
  const last = await tx.auditRecord.findFirst({ where: { tenantId }, orderBy: { sequence: 'desc' }, select: { sequence: true, hash: true } });
  let [sequence, previous] = [Number(last?.sequence ?? 0n), last?.hash ?? GENESIS];
  const at = new Date();
  const data = entries.map(({ actor, action, subject, before = null, after = null }): Prisma.AuditRecordCreateManyInput => {
    sequence += 1;
    const content = { sequence, at: at.toISOString(), actor, action, subject, before: storable(before), after: storable(after), previous };
    previous = auditHash(content);
    return {
      ...{ tenantId, sequence: BigInt(sequence), at, actor, action, subject, previous: content.previous, hash: previous },
      ...(content.before !== null && { before: content.before as Prisma.InputJsonValue }),
      ...(content.after !== null && { after: content.after as Prisma.InputJsonValue }),
    };
  });
  await tx.auditRecord.createMany({ data });
  const changes = data.flatMap(({ subject, action, actor, before = null, after = null }) => {
    const [thing, deviceId] = subject.split(':', 2);
    const detail = { action, actor, before, after } as Prisma.InputJsonObject;
    return thing === 'device' ? [{ tenantId, deviceId: deviceId!, at, kind: 'change' satisfies TimelineKind, detail }] : [];
  });
  if (changes.length > 0) await tx.deviceEvent.createMany({ data: changes });
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
