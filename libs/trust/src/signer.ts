import type { Metadata, Root } from '@tufjs/models';
import {
  isSignedFor,
  metaFile,
  parseMetadata,
  roleKeys,
  serialize,
  snapshotMetadata,
  targetsMetadata,
  timestampMetadata,
  type Role,
  type SignedMetadata,
  type TargetEntry,
} from './metadata.js';
import type { SigningKey } from './signing-key.js';

export type OnlineRole = Exclude<Role, 'root'>;
export const ONLINE_ROLES = ['targets', 'snapshot', 'timestamp'] as const satisfies readonly OnlineRole[];

/** How long each role's metadata is good for, milliseconds. */
export type Lifetimes = Readonly<Record<Role, number>>;
const DAY_MS = 24 * 3_600_000;
export const LIFETIMES: Lifetimes = { root: 365 * DAY_MS, targets: 90 * DAY_MS, snapshot: 7 * DAY_MS, timestamp: DAY_MS };

/** What devices are served now, exact bytes by role. */
export type OnlineFiles = Readonly<Partial<Record<OnlineRole, Uint8Array>>>;

/** What has to be signed and cannot be here: no key of the role's threshold is at hand. */
export class KeysMissing extends Error {
  constructor(
    readonly role: Role,
    message: string,
  ) {
    super(message);
  }
}

export interface SigningRound {
  readonly root: Metadata<Root>;
  readonly current: OnlineFiles;
  /** Every key at hand; each role's are found by what `root` names. */
  readonly keys: readonly SigningKey[];
  readonly targets: readonly TargetEntry[];
  readonly now: Date;
  readonly lifetimes?: Lifetimes;
}

/**
 * Pure: what has to be signed anew, lowest role first, so that devices find `targets` and everything is good for at least half of its life. Nothing
 * when all of it is. Throws KeysMissing.
 */
export function signDue({
  root,
  current,
  keys,
  targets,
  now,
  lifetimes = LIFETIMES,
}: SigningRound): { role: OnlineRole; version: number; bytes: Buffer }[] {
  const due: { role: OnlineRole; version: number; bytes: Buffer }[] = [];
  const held = <R extends OnlineRole>(role: R) => (current[role] ? parseMetadata(role, current[role]) : undefined);
  const fresh = (role: OnlineRole, metadata: SignedMetadata | undefined): boolean =>
    metadata !== undefined && isSignedFor(root, role, metadata) && Date.parse(metadata.signed.expires) - now.getTime() > lifetimes[role] / 2;
  const sign = (role: OnlineRole, metadata: SignedMetadata): Buffer => {
    signWith(root, role, metadata, keys);
    const bytes = serialize(metadata);
    due.push({ role, version: metadata.signed.version, bytes });
    return bytes;
  };
  const expiry = (role: OnlineRole): Date => new Date(now.getTime() + lifetimes[role]);

  const oldTargets = held('targets');
  const sameTargets = oldTargets !== undefined && JSON.stringify(entriesOf(oldTargets)) === JSON.stringify(sorted(targets));
  let targetsVersion = oldTargets?.signed.version ?? 0;
  let targetsBytes = current.targets;
  if (!sameTargets || !fresh('targets', oldTargets))
    targetsBytes = sign('targets', targetsMetadata(++targetsVersion, expiry('targets'), sorted(targets)));

  const oldSnapshot = held('snapshot');
  let snapshotVersion = oldSnapshot?.signed.version ?? 0;
  let snapshotBytes = current.snapshot;
  if (due.length > 0 || !fresh('snapshot', oldSnapshot))
    snapshotBytes = sign('snapshot', snapshotMetadata(++snapshotVersion, expiry('snapshot'), metaFile(targetsVersion, targetsBytes!)));

  const oldTimestamp = held('timestamp');
  if (due.length > 0 || !fresh('timestamp', oldTimestamp))
    sign(
      'timestamp',
      timestampMetadata((oldTimestamp?.signed.version ?? 0) + 1, expiry('timestamp'), now, metaFile(snapshotVersion, snapshotBytes!)),
    );
  return due;
}

/** Signs with every key of the role that is at hand. Throws KeysMissing when they are fewer than the role's threshold. */
export function signWith(root: Metadata<Root>, role: Role, metadata: SignedMetadata, keys: readonly SigningKey[]): void {
  const { keys: named, threshold } = roleKeys(root, role);
  const able = keys.filter(({ id }) => named.some(({ keyID }) => keyID === id));
  if (able.length < threshold)
    throw new KeysMissing(role, `${role} metadata needs signatures of ${threshold} keys; ${able.length} of ${named.length} named keys are here`);
  for (const key of able) key.sign(metadata);
}

/** Ascending by path. */
export const entriesOf = (metadata: ReturnType<typeof targetsMetadata>): TargetEntry[] =>
  sorted(Object.values(metadata.signed.targets).map(({ path, length, hashes }) => ({ path, bytes: length, sha256: hashes['sha256'] ?? '' })));

const sorted = (entries: readonly TargetEntry[]): TargetEntry[] =>
  entries.map(({ path, bytes, sha256 }) => ({ path, bytes, sha256 })).sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
