import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { TensorSource } from './checkpoint.js';
import { VALUE_BYTES, type RawRows, type ValueType } from './raw-rows.js';

const Header = z.record(
  z.string(),
  z.object({ dtype: z.string(), shape: z.array(z.number().int().nonnegative()), data_offsets: z.tuple([z.number(), z.number()]) }),
);
const Index = z.object({ weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+$/)) });

const BYTES_PER_VALUE: Record<string, number> = VALUE_BYTES;
const MAX_HEADER_BYTES = 100 * 2 ** 20;

interface Entry {
  readonly file: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offset: number;
}

/** A checkpoint's tensors, in one safetensors file or in shards with an index. Values are read on demand. */
export class SafeTensors implements TensorSource {
  private readonly handles = new Map<string, Promise<FileHandle>>();

  private constructor(
    private readonly dir: string,
    private readonly entries: ReadonlyMap<string, Entry>,
  ) {}

  /** Reads the headers only. Throws, naming file and tensor, when a shard is missing, truncated or disagrees with the index. */
  static async open(dir: string): Promise<SafeTensors> {
    const index = await readFile(join(dir, 'model.safetensors.index.json'), 'utf8').catch(() => undefined);
    if (index === undefined) return new SafeTensors(dir, await readHeader(join(dir, 'model.safetensors')));
    const { weight_map } = parseJson(Index, index, join(dir, 'model.safetensors.index.json'));
    const entries = new Map<string, Entry>();
    for (const file of new Set(Object.values(weight_map))) for (const [name, entry] of await readHeader(join(dir, file))) entries.set(name, entry);
    for (const [name, file] of Object.entries(weight_map))
      if (!entries.has(name)) throw new Error(`tensor ${name} is not in ${file}, where model.safetensors.index.json puts it`);
    return new SafeTensors(dir, entries);
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  shape(name: string): readonly number[] {
    return this.entry(name).shape;
  }

  valueBytes(name: string): number {
    return BYTES_PER_VALUE[this.entry(name).dtype]!;
  }

  bytes(name: string): number {
    return this.shape(name).reduce((a, b) => a * b, this.valueBytes(name));
  }

  /** Rows [from, to) of a matrix (elements of a vector) as the file holds them. */
  async readRaw(name: string, from: number, to: number): Promise<RawRows> {
    const { file, dtype, shape, offset } = this.entry(name);
    const width = shape.slice(1).reduce((a, b) => a * b, 1);
    const rowBytes = width * BYTES_PER_VALUE[dtype]!;
    const bytes = new Uint8Array((to - from) * rowBytes);
    const handle = await this.handle(file);
    const { bytesRead } = await readFully(handle, bytes, offset + from * rowBytes);
    const origin = `tensor ${name} in ${file}`;
    if (bytesRead < bytes.length) throw new Error(`${origin}: the file ends ${bytes.length - bytesRead} bytes early`);
    return { origin, dtype: dtype as ValueType, bytes, firstRow: from, rows: to - from, width };
  }

  /** Throws unless the tensor exists with this shape in a readable type. */
  expect(name: string, shape: readonly number[]): void {
    const entry = this.entry(name);
    if (entry.shape.join('x') !== shape.join('x'))
      throw new Error(`tensor ${name} in ${entry.file} has shape [${entry.shape.join(', ')}], config.json says [${shape.join(', ')}]`);
    if (!(entry.dtype in BYTES_PER_VALUE))
      throw new Error(`tensor ${name} in ${entry.file} is of type ${entry.dtype}; ${Object.keys(BYTES_PER_VALUE).join(', ')} are read`);
  }

  async close(): Promise<void> {
    for (const handle of this.handles.values()) await (await handle).close();
    this.handles.clear();
  }

  private entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (!entry) throw new Error(`tensor ${name} is missing in ${this.dir} (${this.entries.size} tensors found)`);
    return entry;
  }

  private handle(file: string): Promise<FileHandle> {
    let handle = this.handles.get(file);
    if (!handle) this.handles.set(file, (handle = open(join(this.dir, file))));
    return handle;
  }
}

async function readHeader(path: string): Promise<Map<string, Entry>> {
  const file = basename(path);
  const size = await stat(path).then(
    (s) => s.size,
    () => {
      throw new Error(`weights file ${path} is missing`);
    },
  );
  const handle = await open(path);
  try {
    const prefix = new Uint8Array(8);
    await readFully(handle, prefix, 0);
    const headerBytes = Number(new DataView(prefix.buffer).getBigUint64(0, true));
    if (size < 8 || headerBytes > Math.min(size - 8, MAX_HEADER_BYTES))
      throw new Error(`${path} is truncated or not a safetensors file: ${size} bytes, header of ${headerBytes}`);
    const json = new Uint8Array(headerBytes);
    await readFully(handle, json, 8);
    const { __metadata__: _, ...raw } = parseRecord(new TextDecoder().decode(json), path);
    const entries = new Map<string, Entry>();
    for (const [name, { dtype, shape, data_offsets }] of Object.entries(parse(Header, raw, path))) {
      const [begin, end] = data_offsets;
      const start = 8 + headerBytes;
      if (start + end > size) throw new Error(`${path} is truncated: tensor ${name} ends at byte ${start + end}, the file has ${size}`);
      const expected = shape.reduce((a, b) => a * b, 1) * (BYTES_PER_VALUE[dtype] ?? 0);
      if (expected > 0 && end - begin !== expected)
        throw new Error(`tensor ${name} in ${file} has ${end - begin} bytes, shape [${shape.join(', ')}] of ${dtype} needs ${expected}`);
      entries.set(name, { file, dtype, shape, offset: start + begin });
    }
    return entries;
  } finally {
    await handle.close();
  }
}

async function readFully(handle: FileHandle, into: Uint8Array, position: number): Promise<{ bytesRead: number }> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await handle.read(into, done, Math.min(into.length - done, 2 ** 30), position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return { bytesRead: done };
}

function parseRecord(text: string, path: string): Record<string, unknown> {
  return parseJson(z.record(z.string(), z.unknown()), text, path);
}

function parseJson<T>(schema: z.ZodType<T>, text: string, path: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${path} is not valid JSON`, { cause });
  }
  return parse(schema, value, path);
}

function parse<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const result = schema.safeParse(value);
  if (!result.success) throw new Error(`${path}: ${z.prettifyError(result.error)}`);
  return result.data;
}
