import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { CONFIG, type Config } from '../config.js';
import { DEFAULT_TENANT, inTenant } from '../database/scope.js';
import { AccessRepository, type KeyRow } from './access.repository.js';

const PREFIX = 'mfk_';

/** Keys of the REST and GraphQL API. */
@Injectable()
export class ApiKeyService {
  private readonly log = new Logger('access');

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
    const secret = `${PREFIX}${randomBytes(32).toString('base64url')}`;
    // The file first: a start that is killed in between makes another key, instead of one that nobody can read.
    await writeFile(`${this.firstKeyFile}.new`, `${secret}\n`, { mode: 0o600 });
    await rename(`${this.firstKeyFile}.new`, this.firstKeyFile);
    const key = { id: randomUUID(), name: 'admin', secretHash: hashSecret(secret), installation: true };
    await inTenant(DEFAULT_TENANT, () => this.access.addKey(key));
    this.log.log(`made an API key: it stands in ${this.firstKeyFile}`);
  }

  /** The key with this secret, unless it is unknown or revoked. */
  async verify(secret: string): Promise<KeyRow | undefined> {
    if (!secret.startsWith(PREFIX) || secret.length > 100) return undefined;
    const hash = hashSecret(secret);
    const key = await this.access.findKey(hash);
    return key && sameText(key.secretHash, hash) ? key : undefined;
  }
}

/** Secrets are 256 random bits, so one round of SHA-256 is enough to keep. */
export const hashSecret = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** Compares in constant time. */
export const sameText = (a: string, b: string): boolean => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
