import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { DomainError } from '../errors.js';
import { inTenant } from '../database/scope.js';
import { AccessRepository, type KeyRow } from './access.repository.js';
import { ApiKeyService, hashSecret, sameText } from './api-key.service.js';
import { LoginLimit } from './login-limit.js';

export const SESSION_COOKIE = 'matfleet_session';
export const SESSION_SECONDS = 12 * 3_600;

/** The console's logins: an API key is traded for a cookie, so that the page never keeps the key. */
@Injectable()
export class SessionService {
  private readonly limit = new LoginLimit({ perAddress: 10, overall: 100, windowMs: 60_000 });

  constructor(
    private readonly access: AccessRepository,
    private readonly keys: ApiKeyService,
  ) {}

  /** Returns the cookie's value. Too many wrong keys from one address close the door for a minute. */
  async open(apiKey: string, address: string): Promise<string> {
    if (!this.limit.allows(address, Date.now())) throw new DomainError('resource-exhausted', 'too many wrong API keys: try again in a minute');
    const key = await this.keys.verify(apiKey);
    if (!key) {
      this.limit.failed(address, Date.now());
      throw new DomainError('unauthenticated', 'this API key is unknown or revoked');
    }
    const secret = randomBytes(32).toString('base64url');
    const now = new Date();
    const session = { secretHash: hashSecret(secret), apiKeyId: key.id, expiresAt: new Date(now.getTime() + SESSION_SECONDS * 1_000) };
    await inTenant(key.tenantId, () => this.access.addSession(session, now));
    return secret;
  }

  async close(secret: string): Promise<void> {
    await this.access.removeSession(hashSecret(secret));
  }

  /** The key behind a living session. */
  async verify(secret: string): Promise<KeyRow | undefined> {
    if (!/^[\w-]{43}$/.test(secret)) return undefined;
    const hash = hashSecret(secret);
    const session = await this.access.findSession(hash, new Date());
    return session && sameText(session.secretHash, hash) ? session.apiKey : undefined;
  }
}
