import { join } from 'node:path';
import { Inject, Injectable, Logger, type OnModuleInit } from '@nestjs/common';
import {
  checkRootSuccession,
  isRole,
  isSignedFor,
  KeysMissing,
  LIFETIMES,
  ONLINE_ROLES,
  parseMetadata,
  roleKeys,
  ROLES,
  rootMetadata,
  serialize,
  signDue,
  type MetadataOf,
  type OnlineRole,
  type Role,
  type RoleKeys,
  type SigningKey,
} from '@matfleet/trust';
import type { Actor } from '../audit/audit.js';
import { AuditRepository } from '../audit/audit.repository.js';
import { CONFIG, type Config } from '../config.js';
import { currentTenant, DEFAULT_TENANT, inTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import { Leadership } from '../replicas/leadership.js';
import { KeyDirectory } from './key-directory.js';
import { TrustRepository, type SignedFile, type TrustTransaction } from './trust.repository.js';

const ROOT_WARNING_MS = 60 * 24 * 3_600_000;
const RENEW_EVERY_MS = 10 * 60_000;
/** Every device of a fleet asks for the same few files within seconds. */
const CACHE_MS = 1_000;
const CACHED_MAX = 64;
type Root = MetadataOf['root'];

export interface RoleView {
  readonly role: Role;
  readonly version: number;
  readonly expiresAt: string;
  readonly threshold: number;
  readonly keyIds: readonly string[];
  /** How many of these keys this control plane holds. */
  readonly keysHere: number;
}

const cacheKey = (name: string): string => `${currentTenant()}/${name}`;

/** Says to a tenant's devices which model versions they may take, signed in TUF's four roles by keys of the tenant. Without an operator's root it makes one of its own. */
@Injectable()
export class TrustService implements OnModuleInit {
  private readonly log = new Logger('trust');
  private readonly cache = new Map<string, { readonly bytes: Uint8Array | undefined; readonly untilMs: number }>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly repository: TrustRepository,
    private readonly leadership: Leadership,
    private readonly audit: AuditRepository,
  ) {}

  /** Of the caller's tenant: those of the default one lie beside the others' directories. */
  private get keys(): KeyDirectory {
    const tenantId = currentTenant();
    return new KeyDirectory(join(this.config.dataDir, 'trust', tenantId === DEFAULT_TENANT ? '' : tenantId));
  }

  async onModuleInit(): Promise<void> {
    await this.renewAll();
    this.leadership.every(
      RENEW_EVERY_MS,
      () => this.renewAll(),
      (error) => this.log.error(error),
    );
  }

  /** `root.json`, `3.root.json`, `timestamp.json`, `3.snapshot.json`, `3.targets.json`; refuses what is not there. */
  async file(name: string): Promise<Uint8Array> {
    const cached = this.cache.get(cacheKey(name));
    const bytes = cached && cached.untilMs > performance.now() ? cached.bytes : await this.read(name);
    if (!bytes) throw new DomainError('not-found', `no trust metadata ${name.slice(0, 80)}`);
    return bytes;
  }

  /** Marks the version published and signs that it is, both or none. True when this call did. */
  async publish(modelVersionId: string, now: Date, actor: Actor): Promise<boolean> {
    await this.root();
    const keys = await this.keys.all();
    const published = await this.repository.locked(async (tx) => {
      const entry = await tx.publish(modelVersionId, now);
      if (entry) {
        await this.signDue(tx, keys, now, [...tx.entries, entry]);
        await tx.auditPublished(actor, modelVersionId);
      }
      return entry !== undefined;
    });
    this.cache.clear();
    return published;
  }

  /** Takes versions back: devices find them no more, and neither does anybody else until they are registered again. */
  async retire(modelVersionIds: readonly string[], now: Date, actor: Actor): Promise<void> {
    await this.root();
    const keys = await this.keys.all();
    const gone = new Set(modelVersionIds);
    await this.repository.locked(async (tx) => {
      await this.signDue(
        tx,
        keys,
        now,
        tx.entries.filter(({ path }) => !gone.has(path)),
      );
      await tx.retire(modelVersionIds, now, actor);
    });
    this.cache.clear();
  }

  async view(): Promise<RoleView[]> {
    const here = new Set((await this.keys.all()).map(({ id }) => id));
    const root = await this.root();
    const views: RoleView[] = [];
    for (const role of ROLES) {
      const file = await this.repository.file(role);
      const { keys, threshold } = roleKeys(root, role);
      const keyIds = keys.map(({ keyID }) => keyID);
      const { expires = '' } = file ? parseMetadata(role, file.bytes).signed : {};
      views.push({ role, version: file?.version ?? 0, expiresAt: expires, threshold, keyIds, keysHere: keyIds.filter((id) => here.has(id)).length });
    }
    return views;
  }

  /** Makes a key for an online role, for an operator to name in the next root. The private half stays here. */
  async prepareKey(actor: Actor): Promise<{ keyId: string; public: string }> {
    const { publicKey } = await this.keys.make();
    const key = { keyId: publicKey.keyID, public: publicKey.keyVal['public']! };
    await this.audit.append({ actor, action: 'trust.key-made', subject: `trust:key-${key.keyId}`, after: key });
    return key;
  }

  /**
   * Takes the next root: it must follow the current one by TUF's rules and name keys for the online roles that are here, or nothing could be signed
   * any more. Root keys that are here sign it too, so that a first offline root is handed over; keys that it does not name are removed.
   */
  async putRoot(bytes: Uint8Array, actor: Actor): Promise<RoleView[]> {
    await this.root();
    const keys = await this.keys.all();
    const next = parsed(bytes);
    await this.repository.locked(async (tx) => {
      const current = parseMetadata('root', tx.root!);
      for (const key of keys) if (roleKeys(current, 'root').keys.some(({ keyID }) => keyID === key.id)) key.sign(next);
      try {
        checkRootSuccession(current, next);
      } catch (cause) {
        throw new DomainError('failed-precondition', `this root is refused: ${(cause as Error).message}`, { cause });
      }
      await this.accept(tx, next, keys, actor);
    });
    await this.forgetKeysBeside(next);
    return this.view();
  }

  /** New keys for a role, by this control plane alone; refused once the root keys are kept elsewhere. */
  async rotate(role: string, actor: Actor): Promise<RoleView[]> {
    if (!isRole(role)) throw new DomainError('invalid-argument', `no role ${role.slice(0, 40)}: ${ROLES.join(', ')}`);
    await this.root();
    const fresh = await this.keys.make();
    const keys = await this.keys.all();
    let next: Root | undefined;
    await this.repository
      .locked(async (tx) => {
        const current = parseMetadata('root', tx.root!);
        next = this.successor(current, { [role]: { keys: [fresh.publicKey], threshold: 1 } }, new Date());
        try {
          for (const key of keys) key.sign(next);
          checkRootSuccession(current, next);
        } catch (cause) {
          throw new DomainError('failed-precondition', 'the root keys are not here: matfleet trust rotate signs the next root where they are', {
            cause,
          });
        }
        await this.accept(tx, next, keys, actor);
      })
      .catch(async (error: unknown) => {
        await this.keys.remove(fresh);
        throw error;
      });
    await this.forgetKeysBeside(next!);
    return this.view();
  }

  // -- what happens by itself

  private async renewAll(): Promise<void> {
    for (const tenantId of await this.repository.tenants()) await inTenant(tenantId, () => this.renew());
  }

  /** Makes the first root where there is none, and signs what is past half of its life. */
  private async renew(): Promise<void> {
    const now = new Date();
    await this.repository
      .locked(async (tx) => {
        if (!tx.root) return this.makeFirst(tx, now);
        const keys = await this.keys.all();
        const root = parseMetadata('root', tx.root);
        const renewed = Date.parse(root.signed.expires) - now.getTime() < LIFETIMES.root / 2 ? this.renewedRoot(root, keys, now) : undefined;
        if (renewed) return this.accept(tx, renewed, keys, 'control-plane');
        if (Date.parse(root.signed.expires) - now.getTime() < ROOT_WARNING_MS)
          this.log.warn(`the root of trust expires at ${root.signed.expires}: matfleet trust rotate --role root signs the next one`);
        return this.signDue(tx, keys, now, tx.entries);
      })
      .catch((error: unknown) => {
        if (!(error instanceof DomainError)) throw error;
        this.log.error(error.message);
      });
    this.cache.clear();
  }

  private async makeFirst(tx: TrustTransaction, now: Date): Promise<void> {
    const made: Record<string, SigningKey> = {};
    for (const role of ROLES) made[role] = await this.keys.make();
    const roles = Object.fromEntries(ROLES.map((role) => [role, { keys: [made[role]!.publicKey], threshold: 1 }])) as unknown as Record<
      Role,
      RoleKeys
    >;
    const root = rootMetadata(1, new Date(now.getTime() + LIFETIMES.root), roles);
    made['root']!.sign(root);
    await this.accept(tx, root, Object.values(made), 'control-plane');
    this.log.log('the first root of trust was made here: matfleet trust init moves its keys elsewhere');
  }

  /** With root keys that are here; undefined where they are kept elsewhere. */
  private renewedRoot(current: Root, keys: readonly SigningKey[], now: Date): Root | undefined {
    const next = this.successor(current, {}, now);
    for (const key of keys) if (roleKeys(current, 'root').keys.some(({ keyID }) => keyID === key.id)) key.sign(next);
    return isSignedFor(current, 'root', next) ? next : undefined;
  }

  private successor(current: Root, changed: Partial<Record<Role, RoleKeys>>, now: Date): Root {
    const named = (role: Role): RoleKeys => changed[role] ?? roleKeys(current, role);
    return rootMetadata(current.signed.version + 1, new Date(now.getTime() + LIFETIMES.root), {
      root: named('root'),
      targets: named('targets'),
      snapshot: named('snapshot'),
      timestamp: named('timestamp'),
    });
  }

  /** Stores a root that was checked, and signs everything that its keys have to sign anew. */
  private async accept(tx: TrustTransaction, root: Root, keys: readonly SigningKey[], actor: Actor): Promise<void> {
    const { version } = root.signed;
    await tx.put([{ role: 'root', version, bytes: serialize(root) }]);
    await this.signDue(tx, keys, new Date(), tx.entries, root);
    await tx.audit(actor, { version, keys: Object.fromEntries(ROLES.map((role) => [role, roleKeys(root, role).keys.map(({ keyID }) => keyID)])) });
    this.cache.clear();
  }

  private async signDue(
    tx: TrustTransaction,
    keys: readonly SigningKey[],
    now: Date,
    targets: TrustTransaction['entries'],
    root = parseMetadata('root', tx.root!),
  ): Promise<void> {
    try {
      const due: SignedFile[] = signDue({ root, current: tx.current, keys, targets, now });
      if (due.length > 0) await tx.put(due);
    } catch (error) {
      if (error instanceof KeysMissing)
        throw new DomainError('failed-precondition', `${error.message}: MATFLEET_DATA_DIR/trust is where they lie`, { cause: error });
      throw error;
    }
  }

  private async forgetKeysBeside(root: Root): Promise<void> {
    const named = new Set(Object.keys(root.signed.keys));
    for (const key of await this.keys.all()) if (!named.has(key.id)) await this.keys.remove(key);
    this.cache.clear();
  }

  /** A tenant that is new gets its first one when it is first asked for. */
  private async root(): Promise<Root> {
    const file = (await this.repository.file('root')) ?? (await this.renew().then(() => this.repository.file('root')));
    if (!file) throw new DomainError('unavailable', 'there is no root of trust yet');
    return parseMetadata('root', file.bytes);
  }

  private async read(name: string): Promise<Uint8Array | undefined> {
    const [, number, role] = /^(?:([1-9]\d{0,8})\.)?([a-z]+)\.json$/.exec(name) ?? [];
    if (role === undefined || !isRole(role)) return undefined;
    if (number === undefined ? ONLINE_ROLES.includes(role as OnlineRole) && role !== 'timestamp' : role === 'timestamp') return undefined;
    await this.root();
    const file = await this.repository.file(role, number === undefined ? undefined : Number(number));
    if (this.cache.size >= CACHED_MAX) this.cache.clear();
    this.cache.set(cacheKey(name), { bytes: file?.bytes, untilMs: performance.now() + CACHE_MS });
    return file?.bytes;
  }
}

function parsed(bytes: Uint8Array): Root {
  try {
    return parseMetadata('root', bytes);
  } catch (cause) {
    throw new DomainError('invalid-argument', `this is no root metadata: ${(cause as Error).message}`, { cause });
  }
}
