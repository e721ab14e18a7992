import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { formatJoinToken } from '@matfleet/protocol';
import { Authority } from './authority.js';
import { JoinTokenRepository } from './join-token.repository.js';

export interface IssuedJoinToken {
  /** Shown once: only its hash is kept. */
  readonly token: string;
  readonly expiresAt: Date;
  readonly usesLeft: number;
}

export const JOIN_TOKEN_USES_MAX = 100_000;
export const JOIN_TOKEN_TTL_SECONDS_MAX = 30 * 24 * 3_600;
const DEFAULT_TTL_SECONDS = 24 * 3_600;

/** Hands out and takes the right to enrol. */
@Injectable()
export class JoinTokenService {
  constructor(
    private readonly tokens: JoinTokenRepository,
    private readonly authority: Authority,
  ) {}

  async issue({
    uses = 1,
    ttlSeconds = DEFAULT_TTL_SECONDS,
  }: { uses?: number | undefined; ttlSeconds?: number | undefined } = {}): Promise<IssuedJoinToken> {
    const secret = randomBytes(24).toString('base64url');
    const now = new Date();
    const expiresAt = new Date(now.getTime() + ttlSeconds * 1_000);
    await this.tokens.add({ id: randomUUID(), secretHash: hash(secret), usesLeft: uses, expiresAt }, now);
    return { token: formatJoinToken({ secret, caSha256: this.authority.ca.sha256 }), expiresAt, usesLeft: uses };
  }

  isKnown(secret: string): Promise<boolean> {
    return this.tokens.isKnown(hash(secret), new Date());
  }

  use(secret: string): Promise<boolean> {
    return this.tokens.use(hash(secret), new Date());
  }
}

const hash = (secret: string): string => createHash('sha256').update(secret).digest('hex');
