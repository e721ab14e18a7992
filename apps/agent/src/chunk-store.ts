import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileDurably, type Slot, type StoreView } from '@matfleet/device';
import { chunksOf, Manifest, sliceById, versionId, type Chunk } from '@matfleet/model';

/** Content-addressed files of all model versions: `chunks/<sha256>` and `models/<version>/manifest.json` under one directory. */
export class ChunkStore {
  private cached: { readonly id: string; readonly manifest: Manifest } | undefined;

  constructor(readonly directory: string) {
    this.makeDirectories();
  }

  chunkPath(id: string): string {
    return join(this.directory, 'chunks', id);
  }

  manifestPath(modelVersionId: string): string {
    return join(this.directory, 'models', modelVersionId, 'manifest.json');
  }

  /** Undefined when it is not here, or its bytes are not those of its id. */
  manifest(modelVersionId: string): Manifest | undefined {
    if (this.cached?.id === modelVersionId) return this.cached.manifest;
    const path = this.manifestPath(modelVersionId);
    if (!existsSync(path)) return undefined;
    const data = readFileSync(path);
    if (versionId(data) !== modelVersionId) return undefined;
    const manifest = Manifest.parse(JSON.parse(data.toString('utf8')));
    this.cached = { id: modelVersionId, manifest };
    return manifest;
  }

  /** Throws when the bytes are no manifest that this agent understands. */
  putManifest(modelVersionId: string, data: Uint8Array): void {
    Manifest.parse(JSON.parse(Buffer.from(data).toString('utf8')));
    mkdirSync(join(this.directory, 'models', modelVersionId), { recursive: true });
    writeFileDurably(this.manifestPath(modelVersionId), data, 0o644);
  }

  chunks(slot: Slot): Chunk[] {
    const manifest = this.manifest(slot.modelVersionId);
    if (!manifest) throw new Error(`the manifest of model version ${slot.modelVersionId} is not in the store`);
    return chunksOf(manifest, sliceById(manifest, slot.sliceId));
  }

  /** By presence and size: bytes were verified when they came and are verified again before an activation. */
  view(slot: Slot): StoreView {
    if (!this.manifest(slot.modelVersionId)) return { manifest: false, missingChunks: [] };
    return {
      manifest: true,
      missingChunks: this.chunks(slot)
        .filter(({ id, bytes }) => statSync(this.chunkPath(id), { throwIfNoEntry: false })?.size !== bytes)
        .map(({ id }) => id),
    };
  }

  /** Hashes every chunk of the slice and deletes those that are not what their name says. Answers the deleted ones. */
  async verify(slot: Slot, signal: AbortSignal): Promise<string[]> {
    const damaged: string[] = [];
    for (const { id } of this.chunks(slot)) {
      const hash = createHash('sha256');
      for await (const data of createReadStream(this.chunkPath(id), { signal })) hash.update(data as Buffer);
      if (hash.digest('hex') === id) continue;
      await rm(this.chunkPath(id), { force: true });
      damaged.push(id);
    }
    return damaged;
  }

  /** Deletes what none of these slots needs, half-fetched files included. */
  async collectGarbage(keep: readonly (Slot | undefined)[]): Promise<number> {
    const slots = keep.filter((slot): slot is Slot => slot !== undefined && slot.modelVersionId !== '');
    // A manifest that is still to come names chunks that may be here already: wait for it.
    if (slots.some((slot) => !this.manifest(slot.modelVersionId))) return 0;
    const needed = new Set(slots.flatMap((slot) => this.chunks(slot).map(({ id }) => id)));
    const versions = new Set(slots.map((slot) => slot.modelVersionId));
    let removed = 0;
    for (const name of await readdir(join(this.directory, 'chunks')))
      if (/^[0-9a-f]{64}/.test(name) && !needed.has(name.slice(0, 64))) {
        await rm(join(this.directory, 'chunks', name), { force: true });
        removed += 1;
      }
    for (const name of await readdir(join(this.directory, 'models')))
      if (!versions.has(name)) await rm(join(this.directory, 'models', name), { recursive: true, force: true });
    return removed;
  }

  /** Removes everything: chunks, manifests, and what was prepared from them. */
  async clear(): Promise<void> {
    this.cached = undefined;
    for (const name of ['models', 'prepared', 'chunks']) await rm(join(this.directory, name), { recursive: true, force: true });
    this.makeDirectories();
  }

  private makeDirectories(): void {
    for (const name of ['chunks', 'models']) mkdirSync(join(this.directory, name), { recursive: true });
  }
}
