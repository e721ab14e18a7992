import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import { inSystem } from '../database/scope.js';
import type { Labels } from '../fleet/device-labels.js';
import type { EnrolmentMode, JoinTokenView, OpenJoinToken } from './join-token.service.js';

/** How long a token that has ended is still shown. */
const SHOWN_MS = 7 * 24 * 3_600_000;
const SHOWN_MAX = 1_000;
const SHOWN = { id: true, mode: true, labels: true, usesLeft: true, expiresAt: true, createdAt: true, revokedAt: true } as const;

/** Join tokens, found by the SHA-256 of their secret. */
@Injectable()
export class JoinTokenRepository {
  private readonly opens = new Batcher<string, OpenJoinToken | null>(async (hashes) => {
    const where = { secretHash: { in: [...new Set(hashes)] }, expiresAt: { gt: new Date() }, revokedAt: null };
    const rows = await this.prisma.joinToken.findMany({ where, select: { secretHash: true, id: true, tenantId: true, mode: true, labels: true } });
    const byHash = new Map(rows.map(({ secretHash, ...token }) => [secretHash, typed(token)]));
    return hashes.map((hash) => byHash.get(hash) ?? null);
  });

  constructor(private readonly prisma: PrismaService) {}

  /** Also drops tokens that ended a while ago. */
  async add(
    token: { id: string; secretHash: string; mode: EnrolmentMode; labels: Labels; usesLeft: number; expiresAt: Date },
    now: Date,
    actor: Actor,
  ): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      await tx.joinToken.deleteMany({ where: { expiresAt: { lt: new Date(now.getTime() - SHOWN_MS) } } });
      await tx.joinToken.create({ data: token });
      const { id, secretHash: _secretHash, ...shown } = token;
      await appendAudit(tx, { actor, action: 'join-token.created', subject: `join-token:${id}`, after: shown });
    });
  }

  /** The token with this secret, of whatever tenant, when it may still be presented; uses are counted where a device is made. Asked at every enrolment: in batches. */
  findOpen(secretHash: string): Promise<OpenJoinToken | null> {
    return inSystem(() => this.opens.add(secretHash));
  }

  /** Newest first; at most 1000. */
  async list(): Promise<JoinTokenView[]> {
    const rows = await this.prisma.joinToken.findMany({ orderBy: { createdAt: 'desc' }, take: SHOWN_MAX, select: SHOWN });
    return rows.map(typed);
  }

  /** Null for an unknown token. Safe to repeat. */
  async revoke(id: string, now: Date, actor: Actor): Promise<JoinTokenView | null> {
    return this.prisma.$transaction(async (tx) => {
      const { count } = await tx.joinToken.updateMany({ where: { id, revokedAt: null }, data: { revokedAt: now } });
      const row = await tx.joinToken.findUnique({ where: { id }, select: SHOWN });
      if (!row) return null;
      if (count === 1) {
        const after = { revokedAt: now.toISOString(), usesLeft: row.usesLeft };
        await appendAudit(tx, { actor, action: 'join-token.revoked', subject: `join-token:${id}`, before: { revokedAt: null }, after });
      }
      return typed(row);
    });
  }
}

const typed = <T extends { mode: string; labels: unknown }>(row: T) => ({ ...row, mode: row.mode as EnrolmentMode, labels: row.labels as Labels });
