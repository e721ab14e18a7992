import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Updater } from 'tuf-js';
import { DownloadHTTPError, DownloadLengthMismatchError } from 'tuf-js/dist/error.js';
import { z } from 'zod';
import { checkDistinctKeys, parseMetadata, roleKeys, ROLES, signedAtMs, type Role, type TargetEntry } from './metadata.js';
import { entriesOf } from './signer.js';

/** What a device trusts, whole or not at all. Metadata as its exact text. */
export const TrustState = z.object({
  root: z.string(),
  timestamp: z.string().optional(),
  snapshot: z.string().optional(),
  targets: z.string().optional(),
  /** It is at least so late, by a clock that nobody but the signer sets. Milliseconds since 1970. */
  floorMs: z.number().nonnegative().default(0),
});
export type TrustState = z.infer<typeof TrustState>;

/** Where the state lasts; `save` is durable and atomic. */
export interface TrustStore {
  load(): TrustState | undefined;
  save(state: TrustState): void;
}

/** The file is not there: for a root of a higher version that is the usual answer. */
export class NoSuchMetadata extends Error {}

/** The metadata is not what a device may trust. Nothing of what it trusted before has changed, save a root whose own signatures were right. */
export class TrustViolation extends Error {}

export interface TrustClientParts {
  readonly store: TrustStore;
  /** Bytes of `<name>`, for example `3.root.json`, in pieces; throws NoSuchMetadata. What is sent beyond a role's bound is not read. */
  readonly fetch: (name: string) => AsyncIterable<Uint8Array>;
  /** Wall clock, milliseconds. */
  readonly nowMs: () => number;
  /** A clock that only goes forward while this process runs, milliseconds. */
  readonly monotonicMs: () => number;
}

const BYTES_MAX = { root: 512_000, timestamp: 16_384, snapshot: 64_000, targets: 5_000_000 } as const;
const ROOT_ROTATIONS_MAX = 64;

/**
 * A device's side of TUF (theupdateframework.io, 1.0.31). tuf-js checks roots, signatures, thresholds, versions, lengths, hashes and expiry on a
 * scratch copy; only when all of it held does the copy become the state, in one write. We add two checks: a clock that was set back does not
 * bring expired metadata back to life, and a key under two ids counts once.
 */
export class TrustClient {
  private floorReadAtMs: number;
  private refreshing: Promise<readonly TargetEntry[]> | undefined;

  constructor(private readonly parts: TrustClientParts) {
    this.floorReadAtMs = parts.monotonicMs();
  }

  /** Takes the first root, where there is none yet. Throws when it does not sign itself. */
  begin(root: Uint8Array): void {
    if (this.parts.store.load()) return;
    check(() => {
      const metadata = parseMetadata('root', root);
      metadata.verifyDelegate('root', metadata);
      checkDistinctKeys(metadata);
    });
    this.parts.store.save({ root: Buffer.from(root).toString('utf8'), floorMs: 0 });
  }

  get begun(): boolean {
    return this.parts.store.load() !== undefined;
  }

  /** Brings the trusted metadata up to date and answers what it lists. Throws TrustViolation, or what `fetch` threw. */
  refresh(): Promise<readonly TargetEntry[]> {
    this.refreshing ??= this.run().finally(() => (this.refreshing = undefined));
    return this.refreshing;
  }

  private async run(): Promise<readonly TargetEntry[]> {
    const { store, monotonicMs } = this.parts;
    const before = store.load();
    if (!before) throw new TrustViolation('this device holds no root metadata yet');
    const scratch = mkdtempSync(join(tmpdir(), 'matfleet-trust-'));
    const fetcher = new MetadataFetcher(this.parts.fetch);
    const read = (role: Role): string => readFileSync(join(scratch, `${role}.json`), 'utf8');
    try {
      for (const role of ROLES) if (before[role] !== undefined) writeFileSync(join(scratch, `${role}.json`), before[role]);
      try {
        const updater = new Updater({
          metadataDir: scratch,
          metadataBaseUrl: 'trust:',
          fetcher,
          config: {
            maxRootRotations: ROOT_ROTATIONS_MAX,
            rootMaxLength: BYTES_MAX.root,
            timestampMaxLength: BYTES_MAX.timestamp,
            snapshotMaxLength: BYTES_MAX.snapshot,
            targetsMaxLength: BYTES_MAX.targets,
          },
        });
        await updater.refresh();
      } catch (cause) {
        this.keepRoot(before, read('root'));
        if (fetcher.failure) throw fetcher.failure;
        throw new TrustViolation(reason(cause), { cause });
      }
      const after = { root: read('root'), timestamp: read('timestamp'), snapshot: read('snapshot'), targets: read('targets') };
      const signedMs = check(() => signedAtMs(parseMetadata('timestamp', Buffer.from(after.timestamp))));
      const floorMs = Math.max(this.floorMs(before, after.root), signedMs);
      check(() => this.checkAll(after, floorMs));
      const next = { ...after, floorMs };
      if (ROLES.some((role) => before[role] !== next[role]) || next.floorMs - before.floorMs > FLOOR_STEP_MS) store.save(next);
      this.floorReadAtMs = monotonicMs();
      return entriesOf(parseMetadata('targets', Buffer.from(after.targets)));
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }

  /** A root that its predecessor's keys signed revokes keys, whatever else went wrong: to forget it would give them back. */
  private keepRoot(before: TrustState, root: string): void {
    if (root === before.root) return;
    const versionOf = (text: string): number => parseMetadata('root', Buffer.from(text)).signed.version;
    if (versionOf(root) > versionOf(before.root)) this.parts.store.save({ ...before, root, floorMs: this.floorMs(before, root) });
  }

  /** The stored floor and the time that has passed since on this process's own clock; 0 once the keys that told it are revoked. */
  private floorMs(before: TrustState, root: string): number {
    const tellers = (text: string): string =>
      roleKeys(parseMetadata('root', Buffer.from(text)), 'timestamp')
        .keys.map(({ keyID }) => keyID)
        .sort()
        .join();
    if (before.floorMs === 0 || tellers(before.root) !== tellers(root)) return 0;
    return before.floorMs + Math.max(0, Math.floor(this.parts.monotonicMs() - this.floorReadAtMs));
  }

  private checkAll(files: Readonly<Record<Role, string>>, floorMs: number): void {
    const now = this.parts.nowMs();
    for (const role of ROLES) {
      const metadata = parseMetadata(role, Buffer.from(files[role]));
      if (role === 'root') checkDistinctKeys(parseMetadata('root', Buffer.from(files.root)));
      if (metadata.signed.isExpired(new Date(floorMs)))
        throw new Error(
          `${role} metadata version ${metadata.signed.version} expired at ${metadata.signed.expires}; this device's clock says ${iso(now)}, but it is ${iso(floorMs)} at least`,
        );
      if (metadata.signed.isExpired(new Date(Math.max(now, floorMs))))
        throw new Error(`${role} metadata version ${metadata.signed.version} expired at ${metadata.signed.expires}; it is ${iso(now)}`);
    }
  }
}

/** The floor alone is worth a write to a device's flash so often. */
const FLOOR_STEP_MS = 3_600_000;

const iso = (ms: number): string => new Date(ms).toISOString();

function check<T>(what: () => T): T {
  try {
    return what();
  } catch (cause) {
    throw new TrustViolation(reason(cause), { cause });
  }
}

const reason = (cause: unknown): string => `the signed metadata is refused: ${cause instanceof Error ? cause.message : String(cause)}`;

/** tuf-js asks by address; devices have one channel, so the last part of it is the name. */
class MetadataFetcher {
  /** What went wrong on the way, as opposed to in the bytes. */
  failure: unknown;

  constructor(private readonly fetch: TrustClientParts['fetch']) {}

  async downloadBytes(url: string, maxLength: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    try {
      for await (const piece of this.fetch(url.slice(url.lastIndexOf('/') + 1))) {
        bytes += piece.length;
        if (bytes > maxLength) break;
        pieces.push(piece);
      }
    } catch (error) {
      if (error instanceof NoSuchMetadata) throw new DownloadHTTPError(error.message, 404);
      this.failure = error;
      throw error;
    }
    if (bytes > maxLength) throw new DownloadLengthMismatchError(`more than ${maxLength} bytes were sent for ${url.slice(url.lastIndexOf('/') + 1)}`);
    return Buffer.concat(pieces);
  }

  downloadFile(): Promise<never> {
    return Promise.reject(new Error('targets are not fetched through tuf-js'));
  }
}
