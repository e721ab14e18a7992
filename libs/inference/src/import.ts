import { stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { fullSlice, publishedSlicesFor, type Manifest, type ModelConfig } from '@matfleet/model';
import { openCheckpoint } from './checkpoint.js';
import type { ImportOptions } from './engine-api.js';
import { buildPackage } from './build-package.js';
import { assertNew } from './partial-dir.js';
import { readSliceTable, type SliceTable } from './slice-table.js';

/**
 * Turns a published checkpoint into a package: quantised once, cut into chunks that every slice shares, with the greedy answers that a
 * healthy device must reproduce. `out` appears complete or not at all. Weights pass through in pieces of a few megabytes; golden answers of
 * large models are made in a process of their own on packed weights that are mapped, which takes their room on the disk twice over meanwhile.
 */
export async function importCheckpoint(options: ImportOptions): Promise<Manifest> {
  const { source, out, precision, block, threads, golden = true, signal, onProgress } = options;
  await assertNew(out);
  const checkpoint = await openCheckpoint(source);
  try {
    const table = await slicesFor(options, checkpoint.config);
    return await buildPackage(checkpoint, {
      out,
      name: options.name ?? packageName(source),
      precision,
      table,
      golden,
      ...(block !== undefined && { block }),
      ...(threads !== undefined && { threads }),
      ...(signal && { signal }),
      ...(onProgress && { onProgress }),
    });
  } finally {
    await checkpoint.tensors.close();
  }
}

async function slicesFor(options: ImportOptions, config: ModelConfig): Promise<SliceTable> {
  if (options.slices) return { slices: [...options.slices], evaluation: options.evaluation };
  const beside = join(options.source, 'slices.json');
  const exists = await stat(beside).then(
    () => true,
    () => false,
  );
  return exists ? readSliceTable(beside) : defaultSlices(config);
}

/** Google's table for Google's shapes, else the whole model alone. */
export function defaultSlices(config: ModelConfig): SliceTable {
  const published = publishedSlicesFor(config);
  if (published.length > 0)
    return { slices: published, evaluation: { metric: 'MMLU accuracy (pre-trained)', dataset: 'google/gemma3n-slicing-configs' } };
  return { slices: [fullSlice(config)], evaluation: undefined };
}

const packageName = (source: string): string =>
  basename(resolve(source))
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 63) || 'model';
