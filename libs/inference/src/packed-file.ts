import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExternalTensor } from './onnx-file.js';

const PAGE = 4096;
const COPY_BYTES = 4 * 2 ** 20;

/** Where a matrix and its packed forms lie in a packed file. */
export type PackedPlace = Pick<ExternalTensor, 'offset' | 'bytes'> & { packed: { key: string; offset: number; bytes: number; flag: string }[] };

/**
 * Holds, for each matrix, its bytes as they are in the chunk and the packed form, both on page borders: the runtime finds the packed form by a
 * hash over the bytes, and crashes on packed forms that are not aligned.
 */
export class PackedFile {
  readonly tensors: Record<string, PackedPlace> = {};
  private readonly hash = createHash('sha256');
  private end = 0;

  private constructor(
    private readonly handle: FileHandle,
    /** Relative to the store. */
    readonly location: string,
  ) {}

  /** Makes `location`, which must not exist, below `storeDir`. */
  static async create(storeDir: string, location: string): Promise<PackedFile> {
    return new PackedFile(await open(join(storeDir, location), 'wx'), location);
  }

  /** Copies a tensor that ONNX Runtime saved in the folder `saved`. */
  async add(saved: string, tensor: ExternalTensor): Promise<PackedPlace> {
    const source = await open(join(saved, tensor.location));
    try {
      const offset = await this.copy(source, tensor, tensor.offset, tensor.bytes);
      const packed = [];
      for (const blob of tensor.packed) packed.push({ ...blob, offset: await this.copy(source, tensor, blob.offset, blob.bytes) });
      return (this.tensors[tensor.name] = { offset, bytes: tensor.bytes, packed });
    } finally {
      await source.close();
    }
  }

  /** Flushes and closes; what the file holds then. */
  async finish(): Promise<{ bytes: number; sha256: string }> {
    await this.handle.sync();
    await this.handle.close();
    return { bytes: this.end, sha256: this.hash.digest('hex') };
  }

  /** Closes a file that will not be used. */
  async abandon(): Promise<void> {
    await this.handle.close().catch(() => undefined);
  }

  private async copy(source: FileHandle, { location, name }: ExternalTensor, from: number, bytes: number): Promise<number> {
    await this.append(Buffer.alloc((PAGE - (this.end % PAGE)) % PAGE));
    const to = this.end;
    const buffer = Buffer.allocUnsafe(Math.min(bytes, COPY_BYTES));
    for (let done = 0; done < bytes;) {
      const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, bytes - done), from + done);
      if (bytesRead === 0) throw new Error(`${location} ends inside tensor ${name}`);
      await this.append(buffer.subarray(0, bytesRead));
      done += bytesRead;
    }
    return to;
  }

  private async append(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    this.hash.update(bytes);
    await this.handle.writeFile(bytes);
    this.end += bytes.length;
  }
}
