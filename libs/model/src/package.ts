import { createHash } from 'node:crypto';
import type { Chunk, Manifest, Part } from './manifest.js';
import { sliceWidths } from './slice-math.js';
import type { Slice } from './slice.js';

/** A model version's id: SHA-256 (lower-case hex) over the manifest's exact bytes. */
export const versionId = (manifestBytes: Uint8Array): string => createHash('sha256').update(manifestBytes).digest('hex');

/** The slice of that id, or an error that lists the ids there are. */
export function sliceById(manifest: Pick<Manifest, 'name' | 'slices'>, id: string): Slice {
  const slice = manifest.slices.find((s) => s.id === id);
  if (!slice) throw new Error(`model ${manifest.name} has no slice "${id}"; it has ${manifest.slices.map((s) => s.id).join(', ')}`);
  return slice;
}

/** Per layer, the widths at which its bands end, ascending: where a slice can be cut. */
export function bandEdges(manifest: Pick<Manifest, 'config' | 'chunks'>): number[][] {
  const edges: number[][] = Array.from({ length: manifest.config.numHiddenLayers }, () => []);
  for (const { part } of manifest.chunks) if (part.kind === 'band') edges[part.layer]!.push(part.to);
  return edges.map((list) => list.sort((a, b) => a - b));
}

/** The chunks a device must hold to run `slice`, in the manifest's order. */
export function chunksOf(manifest: Pick<Manifest, 'config' | 'chunks'>, slice: Pick<Slice, 'ffn' | 'skip'>): Chunk[] {
  const widths = sliceWidths(manifest.config, slice);
  return manifest.chunks.filter(({ part }) => {
    switch (part.kind) {
      case 'core':
      case 'tokenizer':
        return true;
      case 'layer':
        return widths[part.layer]! > 0;
      case 'band':
        return part.to <= widths[part.layer]!;
      case 'plane':
        return part.layers.some((layer) => widths[layer]! > 0);
    }
  });
}

/** Quantised matrices from this size on lie on page borders in their chunks, so that they can be mapped instead of copied. */
export const MAPPED_FROM_BYTES = 256 * 1024;

type Tensor = Chunk['tensors'][number];

const mappedMatrices = (chunks: readonly Chunk[]): Tensor[] =>
  chunks
    .filter(({ part }) => part.kind !== 'plane' && part.kind !== 'tokenizer')
    .flatMap(({ tensors }) => tensors)
    .filter(({ bytes, block }) => block !== undefined && bytes >= MAPPED_FROM_BYTES);

const sumOf = (tensors: readonly Tensor[], of: (tensor: Tensor) => number): number => tensors.reduce((sum, tensor) => sum + of(tensor), 0);

/** Bytes of a slice's matrices that are mapped. 0 for small models. */
export const mappedBytes = (manifest: Pick<Manifest, 'config' | 'chunks'>, slice: Pick<Slice, 'ffn' | 'skip'>): number =>
  sumOf(mappedMatrices(chunksOf(manifest, slice)), ({ bytes }) => bytes);

/** A matrix's shape is (N, blocks, bytes of a block). */
const blocksOf = ({ shape }: Tensor): number => shape.slice(0, -1).reduce((product, size) => product * size, 1);
const FLOAT_BYTES = 4;
/** The packed form of a block has its scale beside its values, and the sum of its values. */
const PACKED_BLOCK_BYTES = 2 * FLOAT_BYTES;
/** Two pieces of each matrix begin on a page. */
const PAGES_BYTES = 2 * 4096;

/** What the packed form of these chunks' mapped matrices has beyond their values and scales: a sum for each block. */
export const packedExtraBytes = (chunks: readonly Chunk[]): number => sumOf(mappedMatrices(chunks), (matrix) => FLOAT_BYTES * blocksOf(matrix));

/** On disk, beside the chunks: a slice's mapped matrices as they are, and packed for a processor. 0 for small models. */
export const preparedBytes = (manifest: Pick<Manifest, 'config' | 'chunks'>, slice: Pick<Slice, 'ffn' | 'skip'>): number =>
  sumOf(mappedMatrices(chunksOf(manifest, slice)), (matrix) => 2 * matrix.bytes + PACKED_BLOCK_BYTES * blocksOf(matrix) + PAGES_BYTES);

/** The largest of a slice's matrices: what packing them one after the other holds in memory, times a few. */
export function largestMatrixBytes(manifest: Pick<Manifest, 'config' | 'chunks'>, slice: Pick<Slice, 'ffn' | 'skip'>): number {
  const tensors = chunksOf(manifest, slice).flatMap((chunk) => (chunk.part.kind === 'plane' ? [] : chunk.tensors));
  return Math.max(0, ...tensors.map(({ bytes, block }) => (block === undefined ? 0 : bytes)));
}

/** Slices whose every chunk `slice` has too, itself included: a device that holds it holds them. In the manifest's order. */
export function slicesWithin<S extends Pick<Slice, 'ffn' | 'skip'>>(
  manifest: Pick<Manifest, 'config' | 'chunks'> & { readonly slices: readonly S[] },
  slice: Pick<Slice, 'ffn' | 'skip'>,
): S[] {
  const held = new Set(chunksOf(manifest, slice));
  return manifest.slices.filter((other) => chunksOf(manifest, other).every((chunk) => held.has(chunk)));
}

/** What a chunk holds, for people: "FFN channels 8192 to 16383 of layer 3". */
export function partText(part: Part): string {
  switch (part.kind) {
    case 'core':
      return 'what every slice needs';
    case 'layer':
      return `layer ${part.layer} without its FFN`;
    case 'band':
      return `FFN channels ${part.from} to ${part.to - 1} of layer ${part.layer}`;
    case 'plane':
      return `per-layer embeddings of tokens ${part.fromRow} to ${part.toRow - 1} for layers ${part.layers[0]} to ${part.layers.at(-1)}`;
    case 'tokenizer':
      return part.file;
  }
}
