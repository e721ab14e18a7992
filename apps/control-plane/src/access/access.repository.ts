import { Injectable } from '@nestjs/common';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';
import { inTenant } from '../database/scope.js';

/** Of one tenant. */
const SESSIONS_MAX = 200;
const KEY = { id: true, tenantId: true, secretHash: true, installation: true } as const;

export interface KeyRow {
  readonly id: string;
  readonly tenantId: string;
  readonly secretHash: string;
  /** May make tenants and act in each. */
  readonly installation: boolean;
}

/** API keys and console sessions; both are found by the SHA-256 of their secret. */
@Injectable()
export class AccessRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Of all tenants: whose the key is tells who calls. */
  async findKey(secretHash: string): Promise<KeyRow | null> {
    return this.prisma.system.apiKey.findFirst({ where: { secretHash, revokedAt: null }, select: KEY });
  }

  async addKey(key: { id: string; name: string; secretHash: string; installation: boolean }): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      await tx.apiKey.create({ data: key });
      await appendAudit(tx, {
        actor: 'control-plane',
        action: 'api-key.created',
        subject: `api-key:${key.id}`,
        after: { name: key.name, installation: key.installation },
      });
    });
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
    return this.prisma.system.consoleSession.findFirst({
      where: { secretHash, expiresAt: { gt: now }, apiKey: { revokedAt: null } },
      select: { secretHash: true, apiKey: { select: KEY } },
    });
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
