import {
  LIFETIMES,
  ONLINE_ROLES,
  parseMetadata,
  ROLES,
  rootMetadata,
  serialize,
  signDue,
  SigningKey,
  type OnlineRole,
  type Role,
  type RoleKeys,
  type SignedMetadata,
  type TargetEntry,
} from './index.js';

type Threshold = Readonly<Record<Role, number>>;

/** A fleet's signed metadata with all its keys in hand, as the fleet itself or as somebody who stole them. Not for production. */
export class TestRepository {
  /** What is served, by name. */
  readonly files = new Map<string, Buffer>();
  readonly keys: Record<Role, SigningKey[]> = { root: [], targets: [], snapshot: [], timestamp: [] };
  rootVersion = 0;
  targets: TargetEntry[] = [];

  constructor(
    public now: Date,
    private readonly threshold: Threshold = { root: 1, targets: 1, snapshot: 1, timestamp: 1 },
  ) {
    for (const role of ROLES) this.keys[role] = Array.from({ length: threshold[role] }, () => SigningKey.generate());
    this.putRoot();
    this.sign();
  }

  get root() {
    return parseMetadata('root', this.files.get('root.json')!);
  }

  /** The next root, with the keys as they are now; `also` are keys of the root before. */
  putRoot(also: readonly SigningKey[] = [], lifeMs = LIFETIMES.root): void {
    const named = (role: Role): RoleKeys => ({ keys: this.keys[role].map(({ publicKey }) => publicKey), threshold: this.threshold[role] });
    const roles = { root: named('root'), targets: named('targets'), snapshot: named('snapshot'), timestamp: named('timestamp') };
    const root = rootMetadata(++this.rootVersion, new Date(this.now.getTime() + lifeMs), roles);
    for (const key of [...this.keys.root, ...also]) key.sign(root);
    this.files.set(`${this.rootVersion}.root.json`, serialize(root)).set('root.json', serialize(root));
  }

  rotate(role: Role): SigningKey[] {
    const old = this.keys[role];
    this.keys[role] = old.map(() => SigningKey.generate());
    this.putRoot(role === 'root' ? old : []);
    return old;
  }

  /** Signs what is due. */
  sign(): void {
    const current = Object.fromEntries(ONLINE_ROLES.flatMap((role) => (this.newest(role) ? [[role, this.newest(role)!]] : [])));
    const keys = ONLINE_ROLES.flatMap((role) => this.keys[role]);
    for (const { role, version, bytes } of signDue({ root: this.root, current, keys, targets: this.targets, now: this.now }))
      this.put(role, version, bytes);
  }

  /** Lists another model version and signs. */
  publish(sha256: string, bytes = 100): void {
    this.targets.push({ path: sha256, bytes, sha256 });
    this.sign();
  }

  newest(role: OnlineRole): Buffer | undefined {
    return this.files.get(role === 'timestamp' ? 'timestamp.json' : `newest ${role}`);
  }

  /** Serves this metadata as the role's newest, signed by whatever keys are given. */
  forge(role: OnlineRole, metadata: SignedMetadata, keys: readonly SigningKey[] = this.keys[role]): Buffer {
    for (const key of keys) key.sign(metadata);
    const bytes = serialize(metadata);
    this.put(role, metadata.signed.version, bytes);
    return bytes;
  }

  private put(role: OnlineRole, version: number, bytes: Buffer): void {
    if (role === 'timestamp') this.files.set('timestamp.json', bytes);
    else this.files.set(`${version}.${role}.json`, bytes).set(`newest ${role}`, bytes);
  }
}
