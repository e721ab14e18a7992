import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import { chunksOf, type Manifest, type Slice } from '@matfleet/model';
import { z } from 'zod';
import { runtime } from './onnx.js';
import { isAbandoned, markIn, ownerMark } from './owner.js';
import { packMatrices, type PackOptions } from './pack.js';
import { PackedFile, type PackedPlace } from './packed-file.js';

// ONNX Runtime rearranges quantised matrices for this processor when it loads them, into private memory. Prepared, the rearranged form lies
// in a file beside the chunks and is mapped like them: shared, evictable, and loaded without a copy. It belongs to one set of chunks, one
// version of ONNX Runtime and one kind of processor.

/** Changes with the joined matrices that the graph asks for. */
const FORMAT = 'matfleet-prepared-3';
const WEIGHTS = 'weights.bin';
const INDEX = 'index.json';

const Index = z.object({
  format: z.literal(FORMAT),
  onnxRuntime: z.string(),
  cpu: z.string(),
  bytes: z.number().int().nonnegative(),
  sha256: z.string(),
  tensors: z.record(
    z.string(),
    z.object({
      offset: z.number().int().nonnegative(),
      bytes: z.number().int().positive(),
      packed: z.array(z.object({ key: z.string(), offset: z.number().int().nonnegative(), bytes: z.number().int().positive(), flag: z.string() })),
    }),
  ),
});

type Index = z.infer<typeof Index>;

/** The packed matrices of a slice. */
export interface Prepared {
  /** Relative to the store. */
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly tensors: ReadonlyMap<string, PackedPlace>;
}

/** Where the prepared form of these chunks lies on this machine, relative to the store. */
export function preparedDir(manifest: Manifest, slice: Pick<Slice, 'ffn' | 'skip'>): string {
  const hash = createHash('sha256').update(FORMAT).update(runtime.version).update(processor());
  for (const { id, part } of chunksOf(manifest, slice)) if (part.kind !== 'plane' && part.kind !== 'tokenizer') hash.update(id);
  return join('prepared', hash.digest('hex').slice(0, 32));
}

/** Undefined when there is none, it is of another runtime or processor, or it is not whole. Its bytes are not read: see `isIntact`. */
export async function readPrepared(manifest: Manifest, storeDir: string, slice: Pick<Slice, 'ffn' | 'skip'>): Promise<Prepared | undefined> {
  return readPreparedDir(storeDir, preparedDir(manifest, slice));
}

/** Whether an engine of this slice would map packed weights. */
export const isPrepared = async (manifest: Manifest, storeDir: string, slice: Pick<Slice, 'ffn' | 'skip'>): Promise<boolean> =>
  (await readPrepared(manifest, storeDir, slice)) !== undefined;

/** The same for a folder below the store. */
export async function readPreparedDir(storeDir: string, dir: string): Promise<Prepared | undefined> {
  const text = await readFile(join(storeDir, dir, INDEX), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const index = Index.safeParse(parseJson(text));
  const file = join(dir, WEIGHTS);
  const size = await stat(join(storeDir, file)).then(
    (s) => s.size,
    () => -1,
  );
  if (!index.success || index.data.onnxRuntime !== runtime.version || index.data.cpu !== processor() || size !== index.data.bytes) return undefined;
  return { file, bytes: size, sha256: index.data.sha256, tensors: new Map(Object.entries(index.data.tensors)) };
}

/** Reads the whole packed file and compares its SHA-256 with the index. */
export async function isIntact(storeDir: string, { file, sha256 }: Prepared): Promise<boolean> {
  const hash = createHash('sha256');
  for await (const bytes of createReadStream(join(storeDir, file), { highWaterMark: 2 ** 20 })) hash.update(bytes as Buffer);
  return hash.digest('hex') === sha256;
}

/** What of `prepared/` does not hold what its own index says; every byte is read. A form of another runtime or processor is checked like any other. */
export async function verifyPrepared(storeDir: string): Promise<string[]> {
  const wrong: string[] = [];
  for (const name of (await readdir(join(storeDir, 'prepared')).catch(() => [])).sort()) {
    if (markIn(name) !== undefined) continue;
    const dir = join('prepared', name);
    const index = Index.safeParse(parseJson(await readFile(join(storeDir, dir, INDEX), 'utf8').catch(() => '')));
    const file = join(dir, WEIGHTS);
    const bytes = await stat(join(storeDir, file)).then(
      ({ size }) => size,
      () => undefined,
    );
    if (!index.success) wrong.push(`${dir}: its index cannot be read`);
    else if (bytes === undefined) wrong.push(`${file} is missing`);
    else if (bytes !== index.data.bytes) wrong.push(`${file} has ${bytes} bytes instead of ${index.data.bytes}`);
    else if (!(await isIntact(storeDir, { ...index.data, file, tensors: new Map() }))) wrong.push(`${file}: its SHA-256 is not the one in its index`);
  }
  return wrong;
}

/** Packs these slices' matrices into the folder `dir` of the store, which appears complete or not at all. */
export async function writePrepared(
  manifest: Manifest,
  storeDir: string,
  slices: readonly Slice[],
  dir: string,
  options: PackOptions = {},
): Promise<void> {
  const partial = join('prepared', `.partial-${ownerMark()}-${randomUUID().slice(0, 8)}`);
  try {
    await mkdir(join(storeDir, partial), { recursive: true });
    const file = await PackedFile.create(storeDir, join(partial, WEIGHTS));
    try {
      await packMatrices(manifest, storeDir, slices, file, options);
      const index: Index = {
        format: FORMAT,
        onnxRuntime: runtime.version,
        cpu: processor(),
        ...(await file.finish()),
        tensors: file.tensors,
      };
      await writeFile(join(storeDir, partial, INDEX), JSON.stringify(index));
    } finally {
      await file.abandon();
    }
    await rm(join(storeDir, dir), { recursive: true, force: true });
    await rename(join(storeDir, partial), join(storeDir, dir));
  } catch (error) {
    await rm(join(storeDir, partial), { recursive: true, force: true });
    throw error;
  }
}

/** Removes every prepared slice but these, and what killed processes left. A slice that is in use stays mapped until it is closed. */
export async function sweepPrepared(storeDir: string, keep: readonly { manifest: Manifest; slice: Pick<Slice, 'ffn' | 'skip'> }[]): Promise<void> {
  const kept = new Set(keep.map(({ manifest, slice }) => basename(preparedDir(manifest, slice))));
  const folder = join(storeDir, 'prepared');
  for (const name of await readdir(folder).catch(() => [])) {
    const mark = markIn(name);
    if (!kept.has(name) && (mark === undefined || (await isAbandoned(join(folder, name), mark))))
      await rm(join(folder, name), { recursive: true, force: true });
  }
}

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
