import { Injectable } from '@nestjs/common';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';

const SESSIONS_MAX = 200;

/** API keys and console sessions; both are found by the SHA-256 of their secret. */
@Injectable()
export class AccessRepository {
  constructor(private readonly prisma: PrismaService) {}

  async findKey(secretHash: string): Promise<{ id: string; secretHash: string } | null> {
    return this.prisma.apiKey.findFirst({ where: { secretHash, revokedAt: null }, select: { id: true, secretHash: true } });
  }

  async addKey(key: { id: string; name: string; secretHash: string }): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      await tx.apiKey.create({ data: key });
      await appendAudit(tx, { actor: 'control-plane', action: 'api-key.created', subject: `api-key:${key.id}`, after: { name: key.name } });
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
  async findSession(secretHash: string, now: Date): Promise<{ apiKeyId: string; secretHash: string } | null> {
    return this.prisma.consoleSession.findFirst({
      where: { secretHash, expiresAt: { gt: now }, apiKey: { revokedAt: null } },
      select: { apiKeyId: true, secretHash: true },
    });
  }

  async removeSession(secretHash: string): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      const session = await tx.consoleSession.findUnique({ where: { secretHash }, select: { apiKeyId: true, expiresAt: true } });
      if (!session) return;
      await tx.consoleSession.deleteMany({ where: { secretHash } });
      const { apiKeyId, expiresAt } = session;
      await appendAudit(tx, { actor: `key:${apiKeyId}`, action: 'session.closed', subject: `api-key:${apiKeyId}`, before: { expiresAt } });
    });
  }
}
