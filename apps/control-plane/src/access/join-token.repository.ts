import { Injectable } from '@nestjs/common';
import { PrismaService } from '../database/prisma.service.js';

/** Join tokens, found by the SHA-256 of their secret. */
@Injectable()
export class JoinTokenRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Also drops tokens that can no longer be used. */
  async add(token: { id: string; secretHash: string; usesLeft: number; expiresAt: Date }, now: Date): Promise<void> {
    await this.prisma.joinToken.deleteMany({ where: { OR: [{ expiresAt: { lt: now } }, { usesLeft: { lte: 0 } }] } });
    await this.prisma.joinToken.create({ data: token });
  }

  /** Whether the token may still be presented; uses are counted by `use`. */
  async isKnown(secretHash: string, now: Date): Promise<boolean> {
    return (await this.prisma.joinToken.count({ where: { secretHash, expiresAt: { gt: now } } })) > 0;
  }

  /** Takes one use; false when none is left. Atomic: two devices cannot take the last one. */
  async use(secretHash: string, now: Date): Promise<boolean> {
    const { count } = await this.prisma.joinToken.updateMany({
      where: { secretHash, usesLeft: { gt: 0 }, expiresAt: { gt: now } },
      data: { usesLeft: { decrement: 1 } },
    });
    return count === 1;
  }
}
