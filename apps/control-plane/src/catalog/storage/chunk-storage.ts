import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { DomainError } from '../../errors.js';

export interface StoredChunk {
  readonly id: string;
  readonly bytes: number;
  readonly storedAt: Date;
}

/** Where the bytes of packages lie, each chunk under the SHA-256 of its content. A chunk that is there is whole and was verified. */
export interface ChunkStorage {
  open(): Promise<void>;
  /** Size of a chunk that is here, in bytes. */
  bytesOf(id: string): Promise<number | undefined>;
  /** Takes `bytes` bytes from `source` and keeps them if their SHA-256 is `id`; otherwise nothing changes. Safe to run twice at once. */
  put(id: string, bytes: number, source: Readable): Promise<void>;
  /** Bytes [from, to) of a chunk that is here, as a stream. */
  read(id: string, from: number, to: number): Promise<Readable>;
  /** Safe to repeat. */
  remove(id: string): Promise<void>;
  list(): AsyncIterable<StoredChunk>;
  /** An address of the storage's own that gives the chunk, whole or by ranges, to whoever has it, for so long. Absent: the storage has no address. */
  signedUrl?(id: string, seconds: number): Promise<string>;
}

export function checkChunkId(id: string): string {
  if (!/^[0-9a-f]{64}$/.test(id)) throw new DomainError('invalid-argument', `a chunk id is a lower-case hex SHA-256, not "${id.slice(0, 80)}"`);
  return id;
}

/** The source's pieces, the last of them only once size and SHA-256 of the whole were right: what must not be stored is never complete. */
export async function* verified(id: string, bytes: number, source: Readable): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let received = 0;
  let held: Buffer | undefined;
  for await (const data of source as AsyncIterable<Buffer>) {
    received += data.length;
    if (received > bytes) throw new DomainError('payload-too-large', `chunk ${id} has ${bytes} bytes by its manifest, but more than that arrived`);
    hash.update(data);
    if (held) yield held;
    held = data;
  }
  if (received !== bytes) throw new DomainError('invalid-argument', `chunk ${id} has ${bytes} bytes by its manifest, but ${received} arrived`);
  const actual = hash.digest('hex');
  if (actual !== id) throw new DomainError('invalid-argument', `the SHA-256 of these ${bytes} bytes is ${actual}, not ${id}`);
  if (held) yield held;
}
