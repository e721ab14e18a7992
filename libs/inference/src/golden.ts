import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { mappedBytes, prefillChunkTokens, tokenizerOf, type GoldenPrompt, type Manifest } from '@matfleet/model';
import { Decoder } from './decoder.js';
import type { ImportProgress } from './engine-api.js';
import { generate } from './generate.js';
import { readPreparedDir, writePrepared, type Prepared } from './prepared.js';
import { loadTokenizer } from './tokenizer.js';

const GOLDEN_TOKENS = 8;
const GOLDEN_CONTEXT_TOKENS = 128;
/** Gone with the step. */
const PACKED_DIR = join('prepared', 'golden');
const SILENT = { push: () => '', end: () => '' };

/** Whether making golden answers packs weights for this processor first; small models need not. */
export const packsForGolden = (manifest: Pick<Manifest, 'config' | 'chunks' | 'slices'>): boolean =>
  manifest.slices.some((slice) => mappedBytes(manifest, slice) > 0);

/** What packing all slices' matrices takes on disk at most: each as it is and packed, and those under way once more. */
export function packedBytesAtMost({ chunks }: Pick<Manifest, 'chunks'>): number {
  const tensors = chunks.filter(({ part }) => part.kind !== 'plane').flatMap((chunk) => chunk.tensors);
  const bytes = (kind: (tensor: (typeof tensors)[number]) => boolean): number => tensors.filter(kind).reduce((sum, tensor) => sum + tensor.bytes, 0);
  const matrices = tensors.filter(({ block }) => block !== undefined);
  const scales = bytes(({ name }) => name.endsWith('.scales'));
  const largest = Math.max(0, ...matrices.map((matrix) => matrix.bytes));
  return 2 * (bytes(({ block }) => block !== undefined) + scales) + 3 * largest;
}

/**
 * A short greedy continuation by every slice, as this machine computes it, one slice after the other. Large matrices are packed once for all slices into
 * a file that is mapped, so that private memory stays at some hundred megabytes.
 */
export async function goldenPrompts(
  manifest: Manifest,
  storeDir: string,
  onProgress: (progress: ImportProgress) => void,
  signal?: AbortSignal,
): Promise<GoldenPrompt[]> {
  const { config, slices } = manifest;
  const promptIds = await goldenPromptIds(manifest, storeDir);
  const contextTokens = Math.min(GOLDEN_CONTEXT_TOKENS, config.maxPositionEmbeddings);
  const chunkTokens = prefillChunkTokens(config);
  const prompts: GoldenPrompt[] = [];
  try {
    const prepared = packsForGolden(manifest) ? await pack(manifest, storeDir, onProgress, signal) : undefined;
    for (const [done, slice] of slices.entries()) {
      signal?.throwIfAborted();
      onProgress({ step: 'golden', done, total: slices.length });
      const decoder = await Decoder.open(manifest, storeDir, slice, prepared && { prepared });
      try {
        const cache = decoder.newCache(contextTokens, chunkTokens);
        const options = { maxTokens: GOLDEN_TOKENS };
        const tokenIds: number[] = [];
        for await (const { tokenId } of generate(
          async () => decoder,
          config,
          slice.id,
          cache,
          promptIds,
          options,
          chunkTokens,
          () => SILENT,
        ))
          tokenIds.push(tokenId);
        prompts.push({ sliceId: slice.id, promptIds, tokenIds });
      } finally {
        await decoder.close();
      }
    }
  } finally {
    await rm(join(storeDir, 'prepared'), { recursive: true, force: true });
  }
  return prompts;
}

async function pack(
  manifest: Manifest,
  storeDir: string,
  onProgress: (progress: ImportProgress) => void,
  signal: AbortSignal | undefined,
): Promise<Prepared> {
  const onPacked = (done: number, total: number): void => onProgress({ step: 'packing', done, total });
  await writePrepared(manifest, storeDir, manifest.slices, PACKED_DIR, { onProgress: onPacked, ...(signal && { signal }) });
  const prepared = await readPreparedDir(storeDir, PACKED_DIR);
  if (!prepared) throw new Error(`what was packed in ${join(storeDir, PACKED_DIR)} cannot be read back`);
  return prepared;
}

async function goldenPromptIds({ config, chunks }: Manifest, storeDir: string): Promise<number[]> {
  const chunk = tokenizerOf({ chunks });
  if (chunk) return loadTokenizer(await readFile(join(storeDir, 'chunks', chunk.id))).encodeChat([{ role: 'user', text: 'What can you do?' }]);
  const some = Math.min(config.vocabSize, config.vocabSizePerLayerInput);
  return [config.bosTokenId, ...[0.3, 0.5, 0.7].map((x) => Math.floor(some * x))];
}
