import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { DomainError } from '../errors.js';

/** The artifact store on disk: `<dir>/<sha256>`, each file complete and verified from the moment it has its name. */
export class ChunkStore {
  private readonly incoming: string;

  constructor(readonly dir: string) {
    this.incoming = join(dir, '.incoming');
  }

  /** Removes what uploads that were cut off left behind. */
  async open(): Promise<void> {
    await rm(this.incoming, { recursive: true, force: true });
    await mkdir(this.incoming, { recursive: true });
  }

  /** Size of a chunk that is here, in bytes. */
  async bytesOf(id: string): Promise<number | undefined> {
    return stat(this.path(id)).then(
      (file) => file.size,
      () => undefined,
    );
  }

  /** Takes `bytes` bytes from `source` and keeps them if their SHA-256 is `id`; otherwise nothing changes. Safe to run twice at once. */
  async put(id: string, bytes: number, source: Readable): Promise<void> {
    const partial = join(this.incoming, `${id}-${randomUUID()}`);
    const file = await open(partial, 'wx', 0o644);
    try {
      const hash = createHash('sha256');
      let received = 0;
      for await (const data of source as AsyncIterable<Buffer>) {
        received += data.length;
        if (received > bytes)
          throw new DomainError('payload-too-large', `chunk ${id} has ${bytes} bytes by its manifest, but more than that arrived`);
        hash.update(data);
        await file.write(data);
      }
      if (received !== bytes) throw new DomainError('invalid-argument', `chunk ${id} has ${bytes} bytes by its manifest, but ${received} arrived`);
      const actual = hash.digest('hex');
      if (actual !== id) throw new DomainError('invalid-argument', `the SHA-256 of these ${bytes} bytes is ${actual}, not ${id}`);
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

  /** Bytes [from, to) of a chunk that is here. */
  read(id: string, from: number, to: number): Readable {
    return createReadStream(this.path(id), { start: from, end: to - 1, highWaterMark: 256 * 1024 });
  }

  private path(id: string): string {
    if (!/^[0-9a-f]{64}$/.test(id)) throw new DomainError('invalid-argument', `a chunk id is a lower-case hex SHA-256, not "${id.slice(0, 80)}"`);
    return join(this.dir, id);
  }
}

/** Makes a rename last through a power cut, where the platform can. */
async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
