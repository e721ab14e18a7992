import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sliceById, type Manifest, type Slice } from '@matfleet/model';
import { Decoder } from './decoder.js';
import { preparedDir, readPrepared, writePrepared } from './prepared.js';

export interface PrepareOptions {
  readonly manifest: Manifest;
  /** The folder that holds `chunks/`; gets `prepared/`. */
  readonly storeDir: string;
  readonly sliceId: string;
  readonly threads?: number;
}

export interface PrepareResult {
  /** False when it was there already. */
  readonly made: boolean;
  /** On disk, beside the chunks. */
  readonly bytes: number;
  readonly ms: number;
}

/** Far above rounding, far below a wrong matrix: packed or not, the same kernels run. */
const TOLERANCE = 1e-3;
const PROBE_TOKENS = 5;

/**
 * Packs a slice's matrices for this processor, once, and proves that the packed slice computes the same logits. Afterwards openEngine maps
 * them instead of packing them into private memory. Takes seconds and the memory of an unprepared engine: call it in a process that may fail.
 */
export async function prepare({ manifest, storeDir, sliceId, threads }: PrepareOptions): Promise<PrepareResult> {
  const slice = sliceById(manifest, sliceId);
  const started = performance.now();
  const before = await readPrepared(manifest, storeDir, slice);
  if (before) return { made: false, bytes: before.bytes, ms: performance.now() - started };
  const saveTo = join(storeDir, 'prepared', `.saved-${randomUUID()}`);
  const thread = threads === undefined ? {} : { threads };
  try {
    await mkdir(saveTo, { recursive: true });
    const want = await probe(manifest, await Decoder.open(manifest, storeDir, slice, { ...thread, saveTo }));
    await writePrepared(manifest, storeDir, slice, saveTo);
    const prepared = await readPrepared(manifest, storeDir, slice);
    if (!prepared) throw new Error(`what was prepared in ${preparedDir(manifest, slice)} cannot be read back`);
    const got = await probe(manifest, await Decoder.open(manifest, storeDir, slice, { ...thread, prepared }));
    checkEqual(got, want, slice);
    return { made: true, bytes: prepared.bytes, ms: performance.now() - started };
  } catch (error) {
    await rm(join(storeDir, preparedDir(manifest, slice)), { recursive: true, force: true });
    throw error;
  } finally {
    await rm(saveTo, { recursive: true, force: true });
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
