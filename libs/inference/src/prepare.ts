import { sliceById, type Manifest, type Slice } from '@matfleet/model';
import { Decoder } from './decoder.js';
import { isIntact, preparedDir, readPrepared, writePrepared } from './prepared.js';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

export interface PrepareOptions {
  readonly manifest: Manifest;
  /** The folder that holds `chunks/`; gets `prepared/`. */
  readonly storeDir: string;
  readonly sliceId: string;
  readonly threads?: number;
  /** Compare logits with those of the unpacked slice too, which takes as much private memory as its weights. */
  readonly compareLogits?: boolean;
}

export interface PrepareResult {
  /** False when it was there already, whole. */
  readonly made: boolean;
  /** On disk, beside the chunks. */
  readonly bytes: number;
  readonly ms: number;
}

/** Far above rounding, far below a wrong matrix: packed or not, the same kernels run. */
const TOLERANCE = 1e-3;
const PROBE_TOKENS = 5;

/**
 * Packs a slice's matrices for this processor, once, and proves that each packed product, and where asked the whole slice, computes what the
 * unpacked one does. Afterwards openEngine maps them instead of packing them into private memory. What is there already is read whole and made
 * again where its checksum is another. Takes seconds and some hundred megabytes: call it in a process that may fail.
 */
export async function prepare({ manifest, storeDir, sliceId, threads, compareLogits = false }: PrepareOptions): Promise<PrepareResult> {
  const slice = sliceById(manifest, sliceId);
  const started = performance.now();
  const before = await readPrepared(manifest, storeDir, slice);
  if (before && (await isIntact(storeDir, before))) return { made: false, bytes: before.bytes, ms: performance.now() - started };
  const thread = threads === undefined ? {} : { threads };
  const dir = preparedDir(manifest, slice);
  try {
    await writePrepared(manifest, storeDir, [slice], dir, thread);
    const prepared = await readPrepared(manifest, storeDir, slice);
    if (!prepared) throw new Error(`what was prepared in ${dir} cannot be read back`);
    const got = await probe(manifest, await Decoder.open(manifest, storeDir, slice, { ...thread, prepared }));
    const want = compareLogits ? await probe(manifest, await Decoder.open(manifest, storeDir, slice, thread)) : got;
    checkEqual(got, want, slice);
    return { made: true, bytes: prepared.bytes, ms: performance.now() - started };
  } catch (error) {
    await rm(join(storeDir, dir), { recursive: true, force: true });
    throw error;
  }
}

/** Logits of a short prompt, then the decoder is closed. */
async function probe({ config }: Manifest, decoder: Decoder): Promise<Float32Array> {
  try {
    const ids = Array.from({ length: PROBE_TOKENS }, (_, i) => (config.bosTokenId + i * 37) % config.vocabSize);
    return (await decoder.forward(ids, decoder.newCache(PROBE_TOKENS, PROBE_TOKENS)))[0]!.slice();
  } finally {
    await decoder.close();
  }
}

function checkEqual(got: Float32Array, want: Float32Array, slice: Slice): void {
  for (let i = 0; i < want.length; i++)
    if (!(Math.abs(got[i]! - want[i]!) <= TOLERANCE))
      throw new Error(`slice ${slice.id}, packed, says ${got[i]} for token ${i}, unpacked ${want[i]}: the packed form is not used`);
}
