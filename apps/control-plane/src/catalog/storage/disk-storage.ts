import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, opendir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { DomainError } from '../../errors.js';
import { checkChunkId, verified, type ChunkStorage, type StoredChunk } from './chunk-storage.js';

/** Chunks on disk: `<dir>/<sha256>`, each file complete and verified from the moment it has its name. */
export class DiskStorage implements ChunkStorage {
  private readonly incoming: string;

  constructor(readonly dir: string) {
    this.incoming = join(dir, '.incoming');
  }

  /** Removes what uploads that were cut off left behind. */
  async open(): Promise<void> {
    await rm(this.incoming, { recursive: true, force: true });
    await mkdir(this.incoming, { recursive: true });
  }

  async bytesOf(id: string): Promise<number | undefined> {
    return stat(this.path(id)).then(
      (file) => file.size,
      () => undefined,
    );
  }

  async put(id: string, bytes: number, source: Readable): Promise<void> {
    const partial = join(this.incoming, `${checkChunkId(id)}-${randomUUID()}`);
    const file = await open(partial, 'wx', 0o644);
    try {
      for await (const data of verified(id, bytes, source)) await file.writeFile(data);
      await file.sync();
      await rename(partial, this.path(id));
      await syncDirectory(this.dir);
    } catch (error) {
      throw (error as NodeJS.ErrnoException).code === 'ENOSPC'
        ? new DomainError('resource-exhausted', `the disk of the artifact store is full: chunk ${id} needs ${bytes} bytes`, { cause: error })
        : error;
    } finally {
      await file.close();
      await rm(partial, { force: true });
    }
  }

  read(id: string, from: number, to: number): Promise<Readable> {
    return Promise.resolve(createReadStream(this.path(id), { start: from, end: to - 1, highWaterMark: 256 * 1024 }));
  }

  async remove(id: string): Promise<void> {
    await rm(this.path(id), { force: true });
  }

  async *list(): AsyncIterable<StoredChunk> {
    for await (const { name } of await opendir(this.dir)) {
      if (!/^[0-9a-f]{64}$/.test(name)) continue;
      const file = await stat(join(this.dir, name)).catch(() => undefined);
      if (file) yield { id: name, bytes: file.size, storedAt: file.mtime };
    }
  }

  private path(id: string): string {
    return join(this.dir, checkChunkId(id));
  }
}

/** Makes a rename last through a power cut, where the platform can. */
async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
