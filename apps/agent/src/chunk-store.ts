import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeFileDurably, type Slot, type StoreView } from '@matfleet/device';
import { chunksOf, Manifest, sliceById, sliceRoot, versionId, type Chunk } from '@matfleet/model';

const READ_BYTES = 2 ** 20;

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
    // The folder's own name too: else a power cut takes the manifest of a slice that the journal calls active.
    syncDirectory(join(this.directory, 'models'));
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

  /**
   * Reads every byte of the slice, and deletes chunks that are not what their name says. Answers those and what is missing; with none, the Merkle
   * root over what was read is the one that the manifest gives the slice.
   */
  async verify(slot: Slot, signal: AbortSignal): Promise<string[]> {
    const damaged: string[] = [];
    const read: { id: string; bytes: number }[] = [];
    const wanted = this.chunks(slot);
    for (const { id } of wanted) {
      const found = await this.digest(id, signal);
      if (found) read.push(found);
      if (found?.id === id) continue;
      await rm(this.chunkPath(id), { force: true });
      damaged.push(id);
    }
    if (damaged.length === 0 && sliceRoot(read) !== sliceRoot(wanted))
      throw new Error(`slice ${slot.sliceId}: what lies on disk has the root ${sliceRoot(read)}, its manifest says ${sliceRoot(wanted)}`);
    return damaged;
  }

  /** What a chunk's file holds; undefined when there is none. */
  private async digest(id: string, signal: AbortSignal): Promise<{ id: string; bytes: number } | undefined> {
    const hash = createHash('sha256');
    let bytes = 0;
    try {
      for await (const data of createReadStream(this.chunkPath(id), { signal, highWaterMark: READ_BYTES })) {
        hash.update(data as Buffer);
        bytes += (data as Buffer).length;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    return { id: hash.digest('hex'), bytes };
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
    const made = ['chunks', 'models'].filter((name) => mkdirSync(join(this.directory, name), { recursive: true }) !== undefined);
    if (made.length > 0) syncDirectory(this.directory);
  }
}
