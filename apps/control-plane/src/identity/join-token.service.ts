import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { formatJoinToken } from '@matfleet/protocol';
import type { Actor } from '../audit/audit.js';
import { DomainError } from '../errors.js';
import type { Labels } from '../fleet/device-labels.js';
import { Authority } from './authority.js';
import { JoinTokenRepository } from './join-token.repository.js';

/** Who becomes a device: everybody with the token, whom an operator accepts, or whose key was announced before. */
export const ENROLMENT_MODES = ['auto', 'request', 'preauthorised'] as const;
export type EnrolmentMode = (typeof ENROLMENT_MODES)[number];

export interface JoinTokenView {
  readonly id: string;
  readonly mode: EnrolmentMode;
  /** What its devices are labelled with. */
  readonly labels: Labels;
  readonly usesLeft: number;
  readonly expiresAt: Date;
  readonly createdAt: Date;
  readonly revokedAt: Date | null;
}

export interface IssuedJoinToken {
  readonly id: string;
  /** Shown once: only its hash is kept. */
  readonly token: string;
  readonly mode: EnrolmentMode;
  readonly labels: Labels;
  readonly expiresAt: Date;
  readonly usesLeft: number;
}

/** A token that a device presented; the device becomes one of its tenant. */
export interface OpenJoinToken extends Pick<JoinTokenView, 'id' | 'mode' | 'labels'> {
  readonly tenantId: string;
}

export interface JoinTokenTerms {
  readonly uses?: number | undefined;
  readonly ttlSeconds?: number | undefined;
  readonly mode?: EnrolmentMode | undefined;
  readonly labels?: Labels | undefined;
}

export const JOIN_TOKEN_USES_MAX = 100_000;
export const JOIN_TOKEN_TTL_SECONDS_MAX = 30 * 24 * 3_600;
const DEFAULT_TTL_SECONDS = 24 * 3_600;

/** Hands out the right to enrol, and takes it back. */
@Injectable()
export class JoinTokenService {
  constructor(
    private readonly tokens: JoinTokenRepository,
    private readonly authority: Authority,
  ) {}

  async issue({ uses = 1, ttlSeconds = DEFAULT_TTL_SECONDS, mode = 'auto', labels = {} }: JoinTokenTerms, actor: Actor): Promise<IssuedJoinToken> {
    const secret = randomBytes(24).toString('base64url');
    const now = new Date();
    const expiresAt = new Date(now.getTime() + ttlSeconds * 1_000);
    const id = randomUUID();
    await this.tokens.add({ id, secretHash: hash(secret), mode, labels, usesLeft: uses, expiresAt }, now, actor);
    return { id, token: formatJoinToken({ secret, caSha256: this.authority.ca.sha256 }), mode, labels, expiresAt, usesLeft: uses };
  }

  list(): Promise<JoinTokenView[]> {
    return this.tokens.list();
  }

  /** Nobody enrols with it any more; devices that have are not touched. */
  async revoke(id: string, actor: Actor): Promise<JoinTokenView> {
    const token = await this.tokens.revoke(id, new Date(), actor);
    if (!token) throw new DomainError('not-found', `there is no join token ${id.slice(0, 64)}`);
    return token;
  }

  /** The token that may be presented now, or null. */
  findOpen(secret: string): Promise<OpenJoinToken | null> {
    return this.tokens.findOpen(hash(secret.slice(0, 200)));
  }
}

const hash = (secret: string): string => createHash('sha256').update(secret).digest('hex');
