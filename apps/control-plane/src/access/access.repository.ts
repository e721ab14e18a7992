import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';
import { inTenant } from '../database/scope.js';
import type { ApiKeyView } from './api-key.js';
import type { Role } from './permissions.js';

/** Of one tenant. */
const SESSIONS_MAX = 200;
const KEY = { id: true, tenantId: true, secretHash: true, installation: true, role: true, deviceFilter: true } as const;
/** How long a key that was revoked is still shown. */
const SHOWN_MS = 30 * 24 * 3_600_000;
const SHOWN_MAX = 1_000;

export interface KeyRow {
  readonly id: string;
  readonly tenantId: string;
  readonly secretHash: string;
  /** May make tenants and act in each. */
  readonly installation: boolean;
  readonly role: Role;
  readonly deviceFilter: string | null;
}

export interface NewKey {
  readonly id: string;
  readonly name: string;
  readonly secretHash: string;
  readonly installation: boolean;
  readonly role: Role;
  readonly deviceFilter: string | null;
  readonly expiresAt: Date | null;
}

type Row = Omit<KeyRow, 'role'> & { role: string };
const typed = (row: Row): KeyRow => ({ ...row, role: row.role as Role });
const living = (now: Date) => ({ revokedAt: null, OR: [{ expiresAt: null }, { expiresAt: { gt: now } }] });

const view = ({ deviceFilter, role, ...row }: Omit<ApiKeyView, 'role' | 'devices'> & { role: string; deviceFilter: string | null }): ApiKeyView => ({
  ...row,
  role: role as Role,
  devices: deviceFilter,
});
const SHOWN = {
  ...{ id: true, name: true, role: true, deviceFilter: true, installation: true },
  ...{ createdAt: true, expiresAt: true, revokedAt: true, lastUsedAt: true },
} as const;

/** API keys and console sessions; both are found by the SHA-256 of their secret. */
@Injectable()
export class AccessRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Of all tenants: whose the key is tells who calls. */
  async findKey(secretHash: string): Promise<KeyRow | null> {
    const row = await this.prisma.system.apiKey.findFirst({ where: { secretHash, ...living(new Date()) }, select: KEY });
    return row && typed(row);
  }

  /** Also drops keys that were revoked long ago. 'full': the tenant has as many as it may. */
  async addKey(key: NewKey, actor: Actor): Promise<ApiKeyView | 'full'> {
    return this.prisma.$transaction(async (tx) => {
      await tx.apiKey.deleteMany({ where: { revokedAt: { lt: new Date(Date.now() - SHOWN_MS) } } });
      if ((await tx.apiKey.count()) >= SHOWN_MAX) return 'full';
      const row = view(await tx.apiKey.create({ data: key, select: SHOWN }));
      const { name, role, devices, installation, expiresAt } = row;
      await appendAudit(tx, {
        actor,
        action: 'api-key.created',
        subject: `api-key:${key.id}`,
        after: { name, role, devices, installation, expiresAt },
      });
      return row;
    });
  }

  /** Newest first; at most 1000. */
  async keys(): Promise<ApiKeyView[]> {
    return (await this.prisma.apiKey.findMany({ orderBy: { createdAt: 'desc' }, take: SHOWN_MAX, select: SHOWN })).map(view);
  }

  /** Null for an unknown one. Safe to repeat. */
  async revokeKey(id: string, actor: Actor): Promise<ApiKeyView | null> {
    return this.prisma.$transaction(async (tx) => {
      const revokedAt = new Date();
      const { count } = await tx.apiKey.updateMany({ where: { id, revokedAt: null }, data: { revokedAt } });
      const row = await tx.apiKey.findUnique({ where: { id }, select: SHOWN });
      if (row && count === 1) {
        const entry = { actor, action: 'api-key.revoked', subject: `api-key:${id}` } as const;
        await appendAudit(tx, { ...entry, before: { name: row.name, role: row.role, revokedAt: null }, after: { revokedAt } });
      }
      return row && view(row);
    });
  }

  async used(id: string, at: Date): Promise<void> {
    await this.prisma.system.apiKey.updateMany({ where: { id }, data: { lastUsedAt: at } });
  }

  /** Also drops sessions that have expired, and the oldest beyond the bound. */
  async addSession(session: { secretHash: string; apiKeyId: string; expiresAt: Date }, now: Date): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      await tx.consoleSession.deleteMany({ where: { expiresAt: { lte: now } } });
      const surplus = await tx.consoleSession.findMany({ orderBy: { createdAt: 'desc' }, skip: SESSIONS_MAX - 1, select: { secretHash: true } });
      if (surplus.length > 0) await tx.consoleSession.deleteMany({ where: { secretHash: { in: surplus.map((row) => row.secretHash) } } });
      await tx.consoleSession.create({ data: session });
      const { apiKeyId, expiresAt } = session;
      await appendAudit(tx, { actor: `key:${apiKeyId}`, action: 'session.opened', subject: `api-key:${apiKeyId}`, after: { expiresAt } });
    });
  }

  /** A session ends with its key. */
  async findSession(secretHash: string, now: Date): Promise<{ secretHash: string; apiKey: KeyRow } | null> {
    const row = await this.prisma.system.consoleSession.findFirst({
      where: { secretHash, expiresAt: { gt: now }, apiKey: living(now) },
      select: { secretHash: true, apiKey: { select: KEY } },
    });
    return row && { ...row, apiKey: typed(row.apiKey) };
  }

  async removeSession(secretHash: string): Promise<void> {
    const session = await this.prisma.system.consoleSession.findUnique({ where: { secretHash } });
    if (!session) return;
    const { tenantId, apiKeyId, expiresAt } = session;
    await inTenant(tenantId, () =>
      this.prisma.$transaction(async (tx) => {
        const { count } = await tx.consoleSession.deleteMany({ where: { secretHash } });
        if (count === 0) return;
        await appendAudit(tx, { actor: `key:${apiKeyId}`, action: 'session.closed', subject: `api-key:${apiKeyId}`, before: { expiresAt } });
      }),
    );
  }
}
