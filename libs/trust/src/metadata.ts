import { createHash } from 'node:crypto';
import { type Key, MetaFile, Metadata, MetadataKind, Root, Snapshot, TargetFile, Targets, Timestamp } from '@tufjs/models';

/** TUF's top-level roles: `root` says which keys count, `targets` which files, `snapshot` which versions belong together, `timestamp` what is newest. */
export const ROLES = ['root', 'targets', 'snapshot', 'timestamp'] as const;
export type Role = (typeof ROLES)[number];
export const isRole = (text: string): text is Role => (ROLES as readonly string[]).includes(text);

export type SignedMetadata = Metadata<Root | Targets | Snapshot | Timestamp>;
export interface MetadataOf {
  readonly root: Metadata<Root>;
  readonly targets: Metadata<Targets>;
  readonly snapshot: Metadata<Snapshot>;
  readonly timestamp: Metadata<Timestamp>;
}

export interface RoleKeys {
  readonly keys: readonly Key[];
  /** Distinct keys that must have signed. */
  readonly threshold: number;
}

/** A file that devices may take, by its path; a model version's manifest is `<model version id>`. */
export interface TargetEntry {
  readonly path: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

const SPEC = '1.0.31';
/** When a timestamp was signed: to a device's clock that was set back, it still is at least so late. Milliseconds since 1970. */
const SIGNED_AT = 'x-matfleet-signed-at-ms';

const common = (version: number, expiresAt: Date) => ({ version, specVersion: SPEC, expires: `${expiresAt.toISOString().slice(0, 19)}Z` });

export function rootMetadata(version: number, expiresAt: Date, roles: Readonly<Record<Role, RoleKeys>>): Metadata<Root> {
  const json: ReturnType<Root['toJSON']> = {
    _type: 'root',
    spec_version: SPEC,
    version,
    expires: common(version, expiresAt).expires,
    consistent_snapshot: true,
    keys: Object.fromEntries(ROLES.flatMap((role) => roles[role].keys.map((key) => [key.keyID, key.toJSON()]))),
    roles: Object.fromEntries(ROLES.map((role) => [role, { keyids: roles[role].keys.map(({ keyID }) => keyID), threshold: roles[role].threshold }])),
  };
  return new Metadata(Root.fromJSON(json));
}

export const targetsMetadata = (version: number, expiresAt: Date, entries: readonly TargetEntry[]): Metadata<Targets> =>
  new Metadata(
    new Targets({
      ...common(version, expiresAt),
      targets: Object.fromEntries(
        entries.map(({ path, bytes, sha256 }) => [path, new TargetFile({ path, length: bytes, hashes: { sha256 } })] as const),
      ),
    }),
  );

export const snapshotMetadata = (version: number, expiresAt: Date, targets: MetaFile): Metadata<Snapshot> =>
  new Metadata(new Snapshot({ ...common(version, expiresAt), meta: { 'targets.json': targets } }));

export const timestampMetadata = (version: number, expiresAt: Date, signedAt: Date, snapshot: MetaFile): Metadata<Timestamp> =>
  new Metadata(new Timestamp({ ...common(version, expiresAt), snapshotMeta: snapshot, unrecognizedFields: { [SIGNED_AT]: signedAt.getTime() } }));

/** 0 when it does not say. */
export function signedAtMs({ signed }: Metadata<Timestamp>): number {
  const value = signed.unrecognizedFields[SIGNED_AT];
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0;
}

/** How a file stands in the metadata above it: version, length and SHA-256 of exactly these bytes. */
export const metaFile = (version: number, bytes: Uint8Array): MetaFile =>
  new MetaFile({ version, length: bytes.length, hashes: { sha256: createHash('sha256').update(bytes).digest('hex') } });

export const serialize = (metadata: SignedMetadata): Buffer => Buffer.from(`${JSON.stringify(metadata.toJSON(), null, 1)}\n`);

/** Throws when the bytes are not that role's metadata. Says nothing about signatures. */
export function parseMetadata<R extends Role>(role: R, bytes: Uint8Array): MetadataOf[R] {
  const json = JSON.parse(Buffer.from(bytes).toString('utf8')) as Parameters<typeof Metadata.fromJSON>[1];
  switch (role) {
    case 'root':
      return Metadata.fromJSON(MetadataKind.Root, json) as MetadataOf[R];
    case 'targets':
      return Metadata.fromJSON(MetadataKind.Targets, json) as MetadataOf[R];
    case 'snapshot':
      return Metadata.fromJSON(MetadataKind.Snapshot, json) as MetadataOf[R];
    default:
      return Metadata.fromJSON(MetadataKind.Timestamp, json) as MetadataOf[R];
  }
}

/** Whether enough of the keys that `root` names for the role have signed. */
export function isSignedFor(root: Metadata<Root>, role: Role, metadata: SignedMetadata): boolean {
  try {
    root.verifyDelegate(role, metadata);
    return true;
  } catch {
    return false;
  }
}

export const roleKeys = (root: Metadata<Root>, role: Role): RoleKeys => {
  const { keyIDs, threshold } = root.signed.roles[role]!;
  return { keys: keyIDs.flatMap((id) => root.signed.keys[id] ?? []), threshold };
};

/**
 * Takes `next` as the root after `current`, or throws saying why not: it must be its successor, be signed by enough keys of both, and count no key
 * twice under two ids.
 */
export function checkRootSuccession(current: Metadata<Root>, next: Metadata<Root>): void {
  const version = current.signed.version + 1;
  if (next.signed.version !== version)
    throw new Error(`the root after version ${current.signed.version} has version ${version}, not ${next.signed.version}`);
  current.verifyDelegate('root', next);
  next.verifyDelegate('root', next);
  checkDistinctKeys(next);
}

/** One key under two ids would count twice towards a threshold. */
export function checkDistinctKeys(root: Metadata<Root>): void {
  for (const role of ROLES) {
    const { keys, threshold } = roleKeys(root, role);
    const distinct = new Set(keys.map(({ keyVal }) => JSON.stringify(keyVal)));
    if (distinct.size < keys.length) throw new Error(`root version ${root.signed.version} names one key under two ids for ${role}`);
    if (distinct.size < threshold)
      throw new Error(`root version ${root.signed.version} asks for ${threshold} keys of ${role} and names ${distinct.size}`);
  }
}
