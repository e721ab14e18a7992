import { createHash } from 'node:crypto';
import { open, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MAPPED_FROM_BYTES, type Chunk, type Part } from '@matfleet/model';

type TensorEntry = Chunk['tensors'][number];
/** A tensor of a chunk before it has a place. */
export type TensorHeader = Omit<TensorEntry, 'offset'>;

/** ONNX Runtime maps tensors at these offsets in place; smaller ones are copied anyway and only need to be aligned for their type. */
const MAP_ALIGNMENT = 4096;
const SMALL_ALIGNMENT = 64;

const paddingBefore = (position: number, { bytes }: TensorHeader): number => {
  const alignment = bytes >= MAPPED_FROM_BYTES ? MAP_ALIGNMENT : SMALL_ALIGNMENT;
  return (alignment - (position % alignment)) % alignment;
};

/** Of a chunk with these tensors. */
export const chunkBytes = (tensors: readonly TensorHeader[]): number =>
  tensors.reduce((position, tensor) => position + paddingBefore(position, tensor) + tensor.bytes, 0);

/** Writes one chunk of a package: tensors one after another into a file that is named by its SHA-256 at the end. */
export class ChunkWriter {
  private readonly hash = createHash('sha256');
  private readonly tensors: TensorEntry[] = [];
  private position = 0;

  private constructor(
    private readonly dir: string,
    private readonly part: Part,
    private readonly temporary: string,
    private readonly handle: Awaited<ReturnType<typeof open>>,
  ) {}

  static async create(dir: string, part: Part): Promise<ChunkWriter> {
    const temporary = join(dir, `.writing-${process.pid}-${process.hrtime.bigint()}`);
    return new ChunkWriter(dir, part, temporary, await open(temporary, 'wx'));
  }

  /** Begins a tensor of `bytes` bytes; its values follow through `append`. */
  async begin(tensor: TensorHeader): Promise<void> {
    const padding = paddingBefore(this.position, tensor);
    if (padding > 0) await this.append(new Uint8Array(padding));
    this.tensors.push({ ...tensor, offset: this.position });
  }

  async append(bytes: Uint8Array): Promise<void> {
    this.hash.update(bytes);
    await this.handle.writeFile(bytes);
    this.position += bytes.length;
  }

  /** Flushes to disk and takes the content's name. A chunk with the same bytes may be there already. */
  async finish(): Promise<Chunk> {
    await this.handle.sync();
    await this.handle.close();
    const id = this.hash.digest('hex');
    const last = this.tensors.at(-1);
    const { size } = await stat(this.temporary);
    if (last && last.offset + last.bytes !== size)
      throw new Error(`tensor ${last.name}: ${size - last.offset} bytes written, ${last.bytes} announced`);
    await rename(this.temporary, join(this.dir, id));
    return { id, bytes: this.position, part: this.part, tensors: this.tensors };
  }

  async abandon(): Promise<void> {
    await this.handle.close().catch(() => undefined);
  }
}
