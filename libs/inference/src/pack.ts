import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { bandEdges, chunksOf, sliceWidths, type Manifest, type Slice } from '@matfleet/model';
import { buildForward } from './gemma3n.js';
import { GraphBuilder, type ExternalPlace } from './graph-builder.js';
import { loadBeside } from './graph-file.js';
import { externalTensors } from './onnx-file.js';
import { float32, floatsOf, type Session } from './onnx.js';
import { ownerMark } from './owner.js';
import type { PackedFile } from './packed-file.js';
import { Weights, type PackedProduct } from './weights.js';

// A session over the whole model packs all of its matrices into private memory before it can save them. A few matrices at a time need the memory
// of those few, and their products can be compared before and after, one by one.

/** Raw bytes of the matrices that are packed together; one that is larger comes alone. */
const GROUP_BYTES = 32 * 2 ** 20;
/** Positions of the inputs: decoding and prompts take different kernels. */
const PROBE_POSITIONS = [1, 3];
/** Of the largest value. Far above rounding, far below a wrong matrix: packed or not, the same kernels run. */
const TOLERANCE = 1e-3;

export interface PackOptions {
  readonly threads?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Packs every quantised matrix of these slices into `file` and proves that each packed product is what the unpacked one was. */
export async function packMatrices(
  manifest: Manifest,
  storeDir: string,
  slices: readonly Slice[],
  file: PackedFile,
  options: PackOptions = {},
): Promise<void> {
  const { onProgress, signal } = options;
  const weights: Weights[] = [];
  const saved = join(storeDir, 'prepared', `.saved-${ownerMark()}-${randomUUID().slice(0, 8)}`);
  try {
    const products = new Map<string, PackedProduct>();
    for (const slice of slices) {
      const shape = { config: manifest.config, slice, widths: sliceWidths(manifest.config, slice), bandEdges: bandEdges(manifest) };
      const onProduct = (product: PackedProduct): void => void (products.has(product.name) || products.set(product.name, product));
      const own = new Weights(manifest, chunksOf(manifest, slice), storeDir, { onProduct });
      weights.push(own);
      buildForward(new GraphBuilder(), shape, own);
    }
    const total = [...products.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    let done = 0;
    for (const group of groupsOf([...products.values()])) {
      signal?.throwIfAborted();
      onProgress?.(done, total);
      await mkdir(saved, { recursive: true });
      await packGroup(group, storeDir, saved, file, options.threads ?? 1);
      await rm(saved, { recursive: true });
      done += group.reduce((sum, { bytes }) => sum + bytes, 0);
    }
  } finally {
    for (const own of weights) own.close();
    await rm(saved, { recursive: true, force: true });
  }
}

async function packGroup(group: readonly PackedProduct[], storeDir: string, saved: string, file: PackedFile, threads: number): Promise<void> {
  const want = await withSession(
    group,
    () => undefined,
    storeDir,
    { threads, saveTo: saved },
    (session) => productsOf(session, group),
  );
  const places = new Map<string, ExternalPlace>();
  for (const tensor of externalTensors(await readFile(join(saved, 'graph.onnx'))))
    if (tensor.packed.length > 0) places.set(tensor.name, { location: file.location, ...(await file.add(saved, tensor)) });
  // Products that ONNX Runtime does not pack read the chunk as it is.
  const packed = group.filter(({ name }) => places.has(name));
  if (packed.length === 0) return;
  const got = await withSession(
    packed,
    ({ name }) => places.get(name),
    storeDir,
    { threads },
    (session) => productsOf(session, packed),
  );
  for (const { name } of packed) compare(name, got.get(name)!, want.get(name)!);
}

async function withSession<T>(
  group: readonly PackedProduct[],
  placeOf: (product: PackedProduct) => ExternalPlace | undefined,
  storeDir: string,
  options: { threads: number; saveTo?: string },
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const g = new GraphBuilder();
  for (const K of widthsOf(group)) g.input(`x${K}`, 'float32', [1, 'S', K]);
  for (const [i, product] of group.entries()) g.output(`y${i}`, product.multiply(g, `x${product.K}`, placeOf(product)), 'float32', [1, 'S', `N${i}`]);
  const session = await loadBeside(storeDir, g.toBytes(), { ...options, spinning: 'never' });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

/** Of each product, the results for every number of positions. */
async function productsOf(session: Session, group: readonly PackedProduct[]): Promise<Map<string, Float32Array[]>> {
  const results = new Map<string, Float32Array[]>(group.map(({ name }) => [name, []]));
  for (const positions of PROBE_POSITIONS) {
    const input = (K: number): Float32Array => Float32Array.from({ length: positions * K }, (_, i) => Math.sin(1 + i * 12.9898));
    const outputs = await session.run(Object.fromEntries(widthsOf(group).map((K) => [`x${K}`, float32(input(K), [1, positions, K])])));
    for (const [i, { name }] of group.entries()) results.get(name)!.push(floatsOf(outputs[`y${i}`]!));
  }
  return results;
}

function compare(name: string, got: readonly Float32Array[], want: readonly Float32Array[]): void {
  for (const [p, values] of want.entries()) {
    const bound = TOLERANCE * values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
    for (let i = 0; i < values.length; i++)
      if (!(Math.abs(got[p]![i]! - values[i]!) <= bound))
        throw new Error(`${name}, packed, gives ${got[p]![i]} at ${i}, unpacked ${values[i]}: the packed form is not used`);
  }
}

const widthsOf = (group: readonly PackedProduct[]): number[] => [...new Set(group.map(({ K }) => K))];

function groupsOf(products: readonly PackedProduct[]): PackedProduct[][] {
  const groups: PackedProduct[][] = [];
  let bytes = Infinity;
  for (const product of products) {
    if (bytes + product.bytes > GROUP_BYTES) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(product);
    bytes += product.bytes;
  }
  return groups;
}
