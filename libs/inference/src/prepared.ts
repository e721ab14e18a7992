import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import { chunksOf, type Manifest, type Slice } from '@matfleet/model';
import { z } from 'zod';
import { externalTensors, type ExternalTensor } from './onnx-file.js';
import { runtime } from './onnx.js';

// ONNX Runtime rearranges quantised matrices for this processor when it loads them, into private memory. Prepared, the rearranged form lies
// in a file beside the chunks and is mapped like them: shared, evictable, and loaded without a copy. It belongs to one set of chunks, one
// version of ONNX Runtime and one kind of processor.
//
// The file holds, for each matrix, its bytes as they are in the chunk and the packed form, both on page borders: the runtime finds the
// packed form by a hash over the bytes, and crashes on packed forms that are not aligned.

/** Changes with the joined matrices that the graph asks for. */
const FORMAT = 'matfleet-prepared-2';
const PAGE = 4096;
const COPY_BYTES = 8 * 2 ** 20;

const Index = z.object({
  format: z.literal(FORMAT),
  onnxRuntime: z.string(),
  cpu: z.string(),
  bytes: z.number().int().nonnegative(),
  tensors: z.record(
    z.string(),
    z.object({
      offset: z.number().int().nonnegative(),
      bytes: z.number().int().positive(),
      packed: z.array(z.object({ key: z.string(), offset: z.number().int().nonnegative(), bytes: z.number().int().positive(), flag: z.string() })),
    }),
  ),
});

export type PreparedTensor = z.infer<typeof Index>['tensors'][string];

/** The packed matrices of a slice. */
export interface Prepared {
  /** Relative to the store. */
  readonly file: string;
  readonly bytes: number;
  readonly tensors: ReadonlyMap<string, PreparedTensor>;
}

/** Where the prepared form of these chunks lies on this machine, relative to the store. */
export function preparedDir(manifest: Manifest, slice: Pick<Slice, 'ffn' | 'skip'>): string {
  const hash = createHash('sha256').update(FORMAT).update(runtime.version).update(processor());
  for (const { id, part } of chunksOf(manifest, slice)) if (part.kind !== 'plane' && part.kind !== 'tokenizer') hash.update(id);
  return join('prepared', hash.digest('hex').slice(0, 32));
}

/** Undefined when there is none, or it is not whole. */
export async function readPrepared(manifest: Manifest, storeDir: string, slice: Pick<Slice, 'ffn' | 'skip'>): Promise<Prepared | undefined> {
  const dir = preparedDir(manifest, slice);
  const text = await readFile(join(storeDir, dir, 'index.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const index = Index.safeParse(parseJson(text));
  const file = join(dir, 'weights.bin');
  const size = await stat(join(storeDir, file)).then(
    (s) => s.size,
    () => -1,
  );
  if (!index.success || index.data.onnxRuntime !== runtime.version || index.data.cpu !== processor() || size !== index.data.bytes) return undefined;
  return { file, bytes: size, tensors: new Map(Object.entries(index.data.tensors)) };
}

/** Copies what ONNX Runtime saved, `graph` and the file beside it, to page borders. Appears complete or not at all. */
export async function writePrepared(manifest: Manifest, storeDir: string, slice: Pick<Slice, 'ffn' | 'skip'>, saved: string): Promise<void> {
  const dir = join(storeDir, preparedDir(manifest, slice));
  const partial = join(storeDir, 'prepared', `.partial-${randomUUID()}`);
  try {
    await mkdir(partial, { recursive: true });
    const index: z.infer<typeof Index> = {
      format: FORMAT,
      onnxRuntime: runtime.version,
      cpu: processor(),
      bytes: 0,
      tensors: {},
    };
    const out = await open(join(partial, 'weights.bin'), 'wx');
    try {
      for (const tensor of externalTensors(await readFile(join(saved, 'graph.onnx')))) {
        if (tensor.packed.length === 0) continue;
        index.tensors[tensor.name] = await copyTensor(saved, tensor, (bytes) => (index.bytes = align(index.bytes) + bytes) - bytes, out);
      }
      await out.truncate(index.bytes);
      await out.sync();
    } finally {
      await out.close();
    }
    await writeFile(join(partial, 'index.json'), JSON.stringify(index));
    await rm(dir, { recursive: true, force: true });
    await rename(partial, dir);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

/** Removes every prepared slice but these, and what interrupted runs left. A slice that is in use stays mapped until it is closed. */
export async function sweepPrepared(storeDir: string, keep: readonly { manifest: Manifest; slice: Pick<Slice, 'ffn' | 'skip'> }[]): Promise<void> {
  const kept = new Set(keep.map(({ manifest, slice }) => basename(preparedDir(manifest, slice))));
  for (const name of await readdir(join(storeDir, 'prepared')).catch(() => []))
    if (!kept.has(name)) await rm(join(storeDir, 'prepared', name), { recursive: true, force: true });
}

type FileHandle = Awaited<ReturnType<typeof open>>;

/** `place` reserves so many bytes on a page border and says where. */
async function copyTensor(saved: string, tensor: ExternalTensor, place: (bytes: number) => number, out: FileHandle): Promise<PreparedTensor> {
  const source = await open(join(saved, tensor.location));
  const copy = async (from: number, bytes: number): Promise<number> => {
    const to = place(bytes);
    const buffer = Buffer.allocUnsafe(Math.min(bytes, COPY_BYTES));
    for (let done = 0; done < bytes;) {
      const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, bytes - done), from + done);
      if (bytesRead === 0) throw new Error(`${tensor.location} ends inside tensor ${tensor.name}`);
      await out.write(buffer, 0, bytesRead, to + done);
      done += bytesRead;
    }
    return to;
  };
  try {
    const offset = await copy(tensor.offset, tensor.bytes);
    const packed = [];
    for (const blob of tensor.packed) packed.push({ ...blob, offset: await copy(blob.offset, blob.bytes) });
    return { offset, bytes: tensor.bytes, packed };
  } finally {
    await source.close();
  }
}

const align = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

let known: string | undefined;
/** What packing depends on: the instruction sets that the processor has. */
function processor(): string {
  known ??= (() => {
    try {
      const flags = /^(?:flags|Features)\s*:\s*(.+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
      if (flags) return createHash('sha256').update(flags.split(' ').sort().join(' ')).digest('hex').slice(0, 16);
    } catch {
      // No such file outside Linux: the model's name stands for its instruction sets.
    }
    return cpus()[0]?.model ?? process.arch;
  })();
  return known;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
