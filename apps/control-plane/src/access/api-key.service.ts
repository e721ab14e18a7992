import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Inject, Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { CONFIG, type Config } from '../config.js';
import { DEFAULT_TENANT, inTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import { parseFilter } from '../fleet/device-filter.js';
import type { ApiKeyView, CreateApiKey, IssuedApiKey } from './api-key.js';
import type { CallerIdentity } from './caller.js';
import { AccessRepository, type KeyRow } from './access.repository.js';

const PREFIX = 'mfk_';
const USED_MS = 60_000;
const USED_MAX = 10_000;

/** Keys of the REST and GraphQL API. */
@Injectable()
export class ApiKeyService {
  private readonly log = new Logger('access');
  private readonly usedAtMs = new Map<string, number>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly access: AccessRepository,
  ) {}

  get firstKeyFile(): string {
    return join(this.config.dataDir, 'admin-api-key');
  }

  /** Makes the first key where the data directory has none that this database knows. An emptied file stays empty: then the operator keeps the key elsewhere. */
  async ensureFirstKey(): Promise<void> {
    const known = await readFile(this.firstKeyFile, 'utf8').catch(() => undefined);
    if (known !== undefined && (known.trim() === '' || (await this.verify(known.trim())))) return;
    const secret = newSecret();
    // The file first: a start that is killed in between makes another key, instead of one that nobody can read.
    await writeFile(`${this.firstKeyFile}.new`, `${secret}\n`, { mode: 0o600 });
    await rename(`${this.firstKeyFile}.new`, this.firstKeyFile);
    const key = {
      id: randomUUID(),
      name: 'admin',
      secretHash: hashSecret(secret),
      installation: true,
      role: 'admin',
      deviceFilter: null,
      expiresAt: null,
    } as const;
    await inTenant(DEFAULT_TENANT, () => this.access.addKey(key, 'control-plane'));
    this.log.log(`made an API key: it stands in ${this.firstKeyFile}`);
  }

  /** A key of the caller's tenant. */
  async issue({ name, role, devices, ttlSeconds, installation = false }: CreateApiKey, caller: CallerIdentity): Promise<IssuedApiKey> {
    if (installation && !caller.installation) throw new DomainError('permission-denied', 'only API keys of the installation make such ones');
    if (installation && devices !== undefined) throw new DomainError('invalid-argument', 'a key of the installation means all devices');
    if (devices !== undefined) parseFilter(devices);
    const secret = newSecret();
    const expiresAt = ttlSeconds === undefined ? null : new Date(Date.now() + ttlSeconds * 1_000);
    const key = { id: randomUUID(), name, secretHash: hashSecret(secret), installation, role, deviceFilter: devices ?? null, expiresAt };
    const row = await this.access.addKey(key, caller.actor);
    if (row === 'full') throw new DomainError('resource-exhausted', 'the tenant has 1000 API keys already: revoke some first');
    return { ...row, secret };
  }

  /** Newest first; at most 1000. */
  list(): Promise<ApiKeyView[]> {
    return this.access.keys();
  }

  async revoke(id: string, actor: Actor): Promise<ApiKeyView> {
    const key = await this.access.revokeKey(id, actor);
    if (!key) throw new DomainError('not-found', `there is no API key ${id.slice(0, 64)}`);
    return key;
  }

  /** The key with this secret, unless it is unknown, revoked or has expired. */
  async verify(secret: string): Promise<KeyRow | undefined> {
    if (!secret.startsWith(PREFIX) || secret.length > 100) return undefined;
    const hash = hashSecret(secret);
    const key = await this.access.findKey(hash);
    if (!key || !sameText(key.secretHash, hash)) return undefined;
    this.used(key.id);
    return key;
  }

  /** Written down once a minute for each key; nobody waits for it. */
  private used(id: string): void {
    const nowMs = Date.now();
    if (nowMs - (this.usedAtMs.get(id) ?? -Infinity) < USED_MS) return;
    if (this.usedAtMs.size >= USED_MAX) this.usedAtMs.clear();
    this.usedAtMs.set(id, nowMs);
    void this.access.used(id, new Date(nowMs)).catch((error: unknown) => this.log.warn(String(error)));
  }
}

const newSecret = (): string => `${PREFIX}${randomBytes(32).toString('base64url')}`;

/** Secrets are 256 random bits, so one round of SHA-256 is enough to keep. */
export const hashSecret = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** Compares in constant time. */
export const sameText = (a: string, b: string): boolean => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
