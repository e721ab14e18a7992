import { publishedShapes, type Manifest, type ModelConfig, type PublishedShape } from '@matfleet/model';
import { buildPackage } from './build-package.js';
import type { Checkpoint } from './checkpoint.js';
import type { ImportProgress, PrecisionKind } from './engine-api.js';
import { defaultSlices } from './import.js';
import { assertNew } from './partial-dir.js';
import { RandomTensors } from './random-tensors.js';
import { writeSafeTensors } from './safetensors-writer.js';

export interface SynthOptions {
  /** A published shape, or a configuration of one's own. */
  readonly shape: PublishedShape | ModelConfig;
  /** Must not exist; appears complete or not at all. */
  readonly out: string;
  readonly seed?: number;
  readonly name?: string;
  readonly onProgress?: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
}

/**
 * A package of a true shape with random weights, in the real layout of bands and planes: for measuring speed and memory where the real
 * weights are not at hand. Its answers mean nothing, so it carries no golden prompts.
 */
export async function synthPackage(options: SynthOptions & { precision: PrecisionKind; block?: number }): Promise<Manifest> {
  const { out, precision, block, signal, onProgress } = options;
  await assertNew(out);
  const { checkpoint, name } = randomModel(options);
  return buildPackage(checkpoint, {
    out,
    name: options.name ?? name,
    precision,
    table: defaultSlices(checkpoint.config),
    golden: false,
    ...(block !== undefined && { block }),
    ...(signal && { signal }),
    ...(onProgress && { onProgress }),
  });
}

/** The same values as a published checkpoint: config.json and bfloat16 safetensors in shards with an index. */
export async function synthCheckpoint(options: SynthOptions): Promise<void> {
  await assertNew(options.out);
  const { checkpoint, tensors } = randomModel(options);
  await writeSafeTensors(checkpoint.config, tensors, options);
}

function randomModel({ shape, seed = 1 }: SynthOptions): { checkpoint: Checkpoint; tensors: RandomTensors; name: string } {
  const config = typeof shape === 'string' ? publishedShapes[shape] : shape;
  const tensors = new RandomTensors(config, seed);
  const name = typeof shape === 'string' ? `gemma3n-${shape}-random` : 'gemma3n-random';
  return { checkpoint: { config, tensors, stored: (tensor) => tensor }, tensors, name };
}
