import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { partText, type Chunk } from '@matfleet/model';

/** A chunk file that is not what the manifest says. `problem` names the part, the file, and the numbers. */
export interface DamagedChunk {
  readonly id: string;
  readonly problem: string;
}

/** Throws on the first chunk that is missing or has another size: a look at each file, no reading. */
export async function assertChunks(storeDir: string, chunks: readonly Chunk[]): Promise<void> {
  for (const chunk of chunks) {
    const problem = await sizeProblem(storeDir, chunk);
    if (problem) throw new Error(`${problem}; fetch or import it again`);
  }
}

/** Reads every chunk and compares its SHA-256 with its name. Answers the damaged ones, missing ones included. */
export async function verifyChunks(
  storeDir: string,
  chunks: readonly Chunk[],
  { signal, onBytes }: { signal?: AbortSignal; onBytes?: (bytes: number) => void } = {},
): Promise<DamagedChunk[]> {
  const damaged: DamagedChunk[] = [];
  for (const chunk of chunks) {
    const problem = (await sizeProblem(storeDir, chunk)) ?? (await contentProblem(storeDir, chunk, signal, onBytes));
    if (problem) damaged.push({ id: chunk.id, problem });
  }
  return damaged;
}

const fileOf = (storeDir: string, { id }: Chunk): string => join(storeDir, 'chunks', id);
const nameOf = (storeDir: string, chunk: Chunk): string => `chunk ${chunk.id} (${partText(chunk.part)}), file ${fileOf(storeDir, chunk)},`;

async function sizeProblem(storeDir: string, chunk: Chunk): Promise<string | undefined> {
  const size = await stat(fileOf(storeDir, chunk)).then(
    (found) => found.size,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    },
  );
  if (size === undefined) return `${nameOf(storeDir, chunk)} is missing`;
  return size === chunk.bytes ? undefined : `${nameOf(storeDir, chunk)} has ${size} bytes instead of ${chunk.bytes}`;
}

async function contentProblem(
  storeDir: string,
  chunk: Chunk,
  signal: AbortSignal | undefined,
  onBytes: ((bytes: number) => void) | undefined,
): Promise<string | undefined> {
  const hash = createHash('sha256');
  for await (const data of createReadStream(fileOf(storeDir, chunk), { highWaterMark: 2 ** 20, ...(signal && { signal }) })) {
    hash.update(data as Buffer);
    onBytes?.((data as Buffer).length);
  }
  const found = hash.digest('hex');
  return found === chunk.id ? undefined : `${nameOf(storeDir, chunk)} is damaged: its SHA-256 is ${found}`;
}
