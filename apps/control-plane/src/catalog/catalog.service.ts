import type { Readable } from 'node:stream';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { Manifest, versionId } from '@matfleet/model';
import type { Actor } from '../audit/audit.js';
import { CONFIG, type Config } from '../config.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Metrics } from '../telemetry.js';
import { TrustService } from '../trust/trust.service.js';
import { describeIssues } from '../zod.pipe.js';
import { ModelRepository, type ModelRow } from './model.repository.js';
import { checkChunkId, type ChunkStorage, verified } from './storage/chunk-storage.js';
import { Storage } from './storage/storage.js';

const MANIFESTS_CACHED_MAX = 8;
/** Questions to the storage at a time. */
const STORAGE_PARALLEL = 16;
const MANIFESTS_AT_ONCE = 32;

/** A model version as the rest of the control plane sees it. */
export interface ModelVersion extends ModelRow {
  readonly manifest: Manifest;
}

/** Which models there are, and their bytes. */
@Injectable()
export class CatalogService {
  private readonly log = new Logger('catalog');
  /** Parsed manifests by version id, the least recently used first. Content has no tenant: who may see it is asked before. */
  private readonly manifests = new Map<string, Manifest>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly models: ModelRepository,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
    private readonly trust: TrustService,
    private readonly storage: Storage,
  ) {}

  /** Takes a manifest, exactly as the package holds it, and says which chunks are still to be sent. Safe to repeat. */
  async register(manifestBytes: Uint8Array, actor: Actor): Promise<{ id: string; name: string; missingChunks: string[]; published: boolean }> {
    const manifest = parseManifest(manifestBytes);
    const tooLarge = manifest.chunks.find((chunk) => chunk.bytes > this.config.chunkBytesMax);
    if (tooLarge)
      throw new DomainError(
        'payload-too-large',
        `chunk ${tooLarge.id} has ${tooLarge.bytes} bytes; MATFLEET_CHUNK_BYTES_MAX allows ${this.config.chunkBytesMax}`,
      );
    const id = versionId(manifestBytes);
    await this.models.register({ id, name: manifest.name, manifest: manifestBytes }, manifest.chunks, actor);
    const row = await this.models.find(id);
    return { id, name: manifest.name, missingChunks: await this.missingChunks(manifest), published: Boolean(row?.publishedAt) };
  }

  /** Takes the bytes of a chunk that a registered manifest names. */
  async putChunk(id: string, source: Readable): Promise<void> {
    const chunk = await this.models.chunk(checkChunkId(id));
    if (!chunk) throw new DomainError('failed-precondition', `no registered manifest names chunk ${id.slice(0, 80)}: send the manifest first`);
    // Also where the bytes are here already, perhaps from another tenant: who sends them has them, who knows their hash may not.
    if ((await this.store.bytesOf(id)) === chunk.bytes) for await (const _ of verified(id, chunk.bytes, source));
    else await this.store.put(id, chunk.bytes, source);
    await this.models.setArrived(id, new Date());
    this.metrics.uploadedBytes.inc(chunk.bytes);
  }

  /** Opens the version to devices. Refuses while a chunk is missing; safe to repeat. */
  async publish(id: string, actor: Actor): Promise<ModelVersion> {
    const version = await this.version(id);
    const missing = await this.missingChunks(version.manifest);
    if (missing.length > 0)
      throw new DomainError(
        'failed-precondition',
        `model ${version.name} (${id.slice(0, 12)}) lacks ${missing.length} of ${version.manifest.chunks.length} chunks: ${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ', …' : ''}`,
      );
    if (await this.trust.publish(id, new Date(), actor)) {
      this.log.log({ modelVersionId: id, model: version.name, msg: 'model version published' });
      this.events.emit({ kind: 'model-published', modelVersionId: id });
    }
    return this.version(id);
  }

  /** Newest first; at most 200. */
  async list(): Promise<ModelVersion[]> {
    const versions: ModelVersion[] = [];
    const rows = await this.models.list();
    // A few at a time: a manifest of a large model has megabytes.
    for (let from = 0; from < rows.length; from += MANIFESTS_AT_ONCE) {
      const part = rows.slice(from, from + MANIFESTS_AT_ONCE);
      const read = await this.models.manifests(part.map(({ id }) => id).filter((id) => !this.manifests.has(id)));
      for (const row of part) {
        const bytes = read.get(row.id);
        versions.push({ ...row, manifest: bytes ? parseManifest(bytes) : await this.manifestOf(row.id) });
      }
    }
    return versions;
  }

  async version(id: string): Promise<ModelVersion> {
    const version = await this.findVersion(id);
    if (!version) throw new DomainError('not-found', `no model version ${id.slice(0, 80)}`);
    return version;
  }

  async findVersion(id: string): Promise<ModelVersion | undefined> {
    const row = await this.models.find(id);
    return row ? { ...row, manifest: await this.manifestOf(id) } : undefined;
  }

  /** Manifests never change: one that was read before asks the database nothing. */
  async findManifest(versionId: string): Promise<Manifest | undefined> {
    if (this.manifests.has(versionId)) return this.manifestOf(versionId);
    return (await this.findVersion(versionId))?.manifest;
  }

  /** What a device without a version of its own should run: the version that the last rollout brought to the whole fleet, else the first published one. */
  async currentVersion(): Promise<ModelVersion | undefined> {
    const id = await this.models.currentId();
    return id === undefined ? undefined : this.findVersion(id);
  }

  /** The manifest's exact bytes, whose SHA-256 is the id. */
  async manifestBytes(id: string): Promise<Uint8Array> {
    const bytes = await this.models.manifest(id);
    if (!bytes) throw new DomainError('not-found', `no model version ${id.slice(0, 80)}`);
    return bytes;
  }

  /** Size of a chunk that is here, in bytes; one that only another tenant has sent is not. */
  async chunkBytes(id: string): Promise<number> {
    const chunk = await this.models.chunk(checkChunkId(id));
    if (!chunk?.arrived || (await this.store.bytesOf(id)) !== chunk.bytes) throw new DomainError('not-found', `no chunk ${id}`);
    return chunk.bytes;
  }

  /** Streams bytes [offset, offset + length) of a chunk, to its end when `length` is 0 or reaches beyond it. */
  async openChunk(id: string, offset = 0, length = 0): Promise<Readable> {
    const bytes = await this.chunkBytes(id);
    if (offset < 0 || offset >= bytes) throw new DomainError('out-of-range', `chunk ${id} has ${bytes} bytes, so none at offset ${offset}`);
    return this.store.read(id, offset, length > 0 ? Math.min(bytes, offset + length) : bytes);
  }

  /** An address that gives the chunk to whoever has it, for so long. */
  async signChunk(id: string, seconds: number): Promise<{ url: string; expiresAt: string }> {
    await this.chunkBytes(id);
    const expiresAt = new Date(Date.now() + seconds * 1_000);
    const url = (await this.store.signedUrl?.(id, seconds)) ?? this.storage.urls.sign(id, expiresAt);
    return { url, expiresAt: expiresAt.toISOString() };
  }

  isSigned(id: string, expires: number, signature: string): boolean {
    return this.storage.urls.verify(id, expires, signature, new Date());
  }

  /** For holders of a signed address: who signed it looked up whether the chunk may be had. */
  readonly signedReader = {
    chunkBytes: async (id: string): Promise<number> => {
      const bytes = await this.store.bytesOf(id);
      if (bytes === undefined) throw new DomainError('not-found', `no chunk ${id}`);
      return bytes;
    },
    openChunk: (id: string, offset: number, length: number): Promise<Readable> => this.store.read(id, offset, offset + length),
  };

  /** Keeps a version whatever happens, or no longer. */
  async pin(id: string, pinned: boolean, actor: Actor): Promise<ModelVersion> {
    if (!(await this.models.pin(id, pinned ? new Date() : null, actor))) throw new DomainError('not-found', `no model version ${id.slice(0, 80)}`);
    return this.version(id);
  }

  /** Ids without a repetition. */
  private async missingChunks(manifest: Manifest): Promise<string[]> {
    const bytesOf = new Map(manifest.chunks.map(({ id, bytes }) => [id, bytes]));
    const arrived = [...(await this.models.arrived([...bytesOf.keys()]))];
    const here = await inParallel(STORAGE_PARALLEL, arrived, async (id) => (await this.store.bytesOf(id)) === bytesOf.get(id));
    const held = new Set(arrived.filter((_, i) => here[i]));
    return [...bytesOf.keys()].filter((id) => !held.has(id));
  }

  private get store(): ChunkStorage {
    return this.storage.chunks;
  }

  private async manifestOf(id: string): Promise<Manifest> {
    const cached = this.manifests.get(id);
    const manifest = cached ?? parseManifest(await this.manifestBytes(id));
    this.manifests.delete(id);
    this.manifests.set(id, manifest);
    for (const oldest of this.manifests.keys()) {
      if (this.manifests.size <= MANIFESTS_CACHED_MAX) break;
      this.manifests.delete(oldest);
    }
    return manifest;
  }
}

function parseManifest(bytes: Uint8Array): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new DomainError('invalid-argument', `the manifest (${bytes.length} bytes) is not JSON in UTF-8`, { cause });
  }
  const result = Manifest.safeParse(json);
  if (!result.success) throw new DomainError('invalid-argument', `the manifest is not a matfleet-package-1: ${describeIssues(result.error)}`);
  return result.data;
}

/** The results in the items' order, `width` at a time. */
async function inParallel<T, R>(width: number, items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i]!);
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  return results;
}
