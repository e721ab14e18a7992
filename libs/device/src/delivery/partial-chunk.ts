import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DiskFull } from './disk-room.js';
import { syncDirectory } from '../state-file.js';

/** The bytes are not those that the chunk's name promises. */
export class DamagedChunk extends Error {}

/** A chunk that is on its way: `<path>.part`, which takes its name only after its size and SHA-256 were right. Survives restarts of the process. */
export class PartialChunk {
  private constructor(
    private readonly chunk: { readonly id: string; readonly bytes: number },
    private readonly path: string,
    private readonly file: FileHandle,
    private hash: Hash,
    private size: number,
  ) {}

  /** Opens what an earlier attempt left, hashing it; a part longer than its chunk is begun anew. */
  static async open(chunk: { readonly id: string; readonly bytes: number }, path: string): Promise<PartialChunk> {
    const part = `${path}.part`;
    const file = await onDisk(chunk.id, part, async () => {
      await mkdir(dirname(path), { recursive: true });
      return open(part, 'a+', 0o644);
    });
    try {
      const hash = createHash('sha256');
      let size = (await file.stat()).size;
      if (size > chunk.bytes) {
        await file.truncate(0);
        size = 0;
      }
      if (size > 0) for await (const data of createReadStream(part, { end: size - 1 })) hash.update(data as Buffer);
      return new PartialChunk(chunk, path, file, hash, size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Bytes that are here: where the next range begins. */
  get heldBytes(): number {
    return this.size;
  }

  get complete(): boolean {
    return this.size === this.chunk.bytes;
  }

  /** Throws when that is more than the chunk has. */
  async append(data: Uint8Array): Promise<void> {
    if (this.size + data.length > this.chunk.bytes)
      throw new DamagedChunk(`chunk ${this.chunk.id}: more than its ${this.chunk.bytes} bytes were sent`);
    await onDisk(this.chunk.id, this.path, () => this.file.writeFile(data));
    this.hash.update(data);
    this.size += data.length;
  }

  /** Gives the file its name, durably. Bytes with another hash are deleted. */
  async finish(): Promise<void> {
    const found = this.hash.digest('hex');
    if (found !== this.chunk.id) {
      await this.discard();
      throw new DamagedChunk(`chunk ${this.chunk.id}: ${this.chunk.bytes} bytes received have SHA-256 ${found}`);
    }
    await onDisk(this.chunk.id, this.path, async () => {
      await this.file.sync();
      await rename(`${this.path}.part`, this.path);
      syncDirectory(dirname(this.path));
    });
  }

  /** What is here is worth nothing. */
  async discard(): Promise<void> {
    await rm(`${this.path}.part`, { force: true });
    this.hash = createHash('sha256');
    this.size = 0;
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

/** A full or read-only disk is told as what it is. */
async function onDisk<T>(chunkId: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      // The room that is left belongs to the journal.
      await rm(`${path}.part`, { force: true }).catch(() => undefined);
      throw new DiskFull(`the disk that holds ${dirname(path)} is full: chunk ${chunkId} could not be written`, { cause });
    }
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM')
      throw new Error(`${dirname(path)} cannot be written (${code}): chunk ${chunkId} was not fetched`, { cause });
    throw cause;
  }
}
