import { Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { sortGarbage } from '../domain/garbage.js';
import { TrustService } from '../trust/trust.service.js';
import { CatalogService } from './catalog.service.js';
import { GarbageRepository } from './garbage.repository.js';
import { Storage } from './storage/storage.js';

/** A chunk that arrived lately may belong to a manifest that is on its way. */
const GRACE_MS = 3_600_000;
const BATCH = 500;

export interface GarbageReport {
  /** False: what would be removed. */
  readonly removed: boolean;
  readonly garbage: readonly { readonly id: string; readonly name: string }[];
  readonly kept: readonly { readonly id: string; readonly name: string; readonly why: string }[];
  /** Chunks that the tenant gives up, and their bytes; whether another tenant keeps one of them is not its business. */
  readonly chunks: number;
  readonly bytes: number;
}

/** Removes what nothing in the fleet needs: versions first, so that no device is led to them, then chunks that no version names. */
@Injectable()
export class GarbageService {
  private readonly log = new Logger('catalog');

  constructor(
    private readonly repository: GarbageRepository,
    private readonly catalog: CatalogService,
    private readonly storage: Storage,
    private readonly trust: TrustService,
  ) {}

  async collect({ minimumAgeMs, remove }: { minimumAgeMs: number; remove: boolean }, actor: Actor): Promise<GarbageReport> {
    const now = new Date();
    const graceMs = Math.min(GRACE_MS, minimumAgeMs);
    const { kept, garbage } = sortGarbage(await this.repository.versions(), await this.repository.roots(), now, minimumAgeMs);
    const named = new Set<string>();
    for (const { version } of kept) for (const { id } of (await this.catalog.version(version.id)).manifest.chunks) named.add(id);
    if (remove && garbage.length > 0)
      await this.trust.retire(
        garbage.map(({ id }) => id),
        now,
        actor,
      );
    const before = new Date(now.getTime() - graceMs);
    const chunks = await this.repository.chunksBeside(named, before);
    if (remove) {
      await this.repository.forgetChunks(chunks.map(({ id }) => id));
      await this.sweep(before);
    }
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
    if (remove) this.log.log({ versions: garbage.length, chunks: chunks.length, bytes, msg: 'garbage of the catalogue removed' });
    return {
      removed: remove,
      garbage: garbage.map(({ id, name }) => ({ id, name })),
      kept: kept.map(({ version: { id, name }, why }) => ({ id, name, why })),
      chunks: chunks.length,
      bytes,
    };
  }

  /** Deletes what no tenant names any more. */
  private async sweep(storedBefore: Date): Promise<void> {
    let batch: string[] = [];
    const flush = async (): Promise<void> => {
      // Asked right before: a manifest that came meanwhile names its chunks again.
      const still = await this.repository.stillNamed(batch);
      for (const id of batch) if (!still.has(id)) await this.storage.chunks.remove(id);
      batch = [];
    };
    for await (const { id, storedAt } of this.storage.chunks.list()) {
      if (storedAt > storedBefore) continue;
      batch.push(id);
      if (batch.length === BATCH) await flush();
    }
    if (batch.length > 0) await flush();
  }
}
