// For specs only: computes the same on an accelerator and on the CPU and prints how far they differ. A process of its own, because graphics
// drivers are found by environment variables that count at its start. Its argument is one JSON document, its result one on stdout.
import { sliceById } from '@matfleet/model';
import { attend, type AttentionCase } from './attention-check.js';
import type { Provider } from './kernels.js';
import { isKept } from './onnx.js';
import { readManifest } from './package-dir.js';
import { acceleratorBytes, type Placement } from './placement.js';
import { SliceSet } from './slice-set.js';
import { largestDifference } from './testing-fixture.js';

/** One pass after another over one cache: the slice that computes it, its tokens, and the last of them whose logits are compared. */
export type Passes = readonly (readonly [sliceId: string, tokens: number, compared: number])[];

export interface AcceleratorReport {
  /** Of the logits of each sequence of passes: the largest. */
  readonly differences: readonly number[];
  /** Largest logit, to compare them with. */
  readonly largestLogit: number;
  readonly placements: Readonly<Record<string, Placement>>;
  readonly acceleratorBytes: Readonly<Record<string, number>>;
  /** After every sequence the last slice's keys and values lay with the accelerator. */
  readonly kept: boolean;
  /** Positions of one pass that the check of its attention allows. */
  readonly passTokens: number;
  /** Of each attention case's outputs. */
  readonly attention: readonly number[];
}

export interface AcceleratorTask {
  readonly packageDir: string;
  readonly provider: Provider;
  readonly sequences: readonly Passes[];
  readonly attention: readonly AttentionCase[];
}

async function run({ packageDir, provider, sequences, attention }: AcceleratorTask): Promise<AcceleratorReport> {
  const manifest = await readManifest(packageDir);
  const ids = [...new Set(sequences.flat().map(([sliceId]) => sliceId))];
  const open = (on: Provider, mostOpen: number): Promise<SliceSet> =>
    SliceSet.create(
      manifest,
      packageDir,
      ids.map((id) => sliceById(manifest, id)),
      { mostOpen, provider: on },
    );
  // One less than needed: what a slice computed must outlive its session.
  const [cpu, accelerator] = [await open('cpu', ids.length), await open(provider, Math.max(1, ids.length - 1))];
  const { vocabSize: V, bosTokenId } = manifest.config;
  const { passTokens } = accelerator;
  const logits = async (slices: SliceSet, passes: Passes): Promise<Float32Array[]> => {
    const cache = slices.newCache(128, passTokens);
    const rows: Float32Array[] = [];
    for (const [sliceId, tokens, compared] of passes) {
      const text = Array.from({ length: tokens }, (_, i) => (cache.length + i === 0 ? bosTokenId : 4 + (((cache.length + i) * 259) % (V - 4))));
      const decoder = await slices.use(sliceId);
      rows.push(...(await decoder.forward(text, cache, compared)).map((row) => row.slice()));
    }
    if (slices === accelerator) {
      const own = Object.entries(cache.feeds((await slices.use(passes.at(-1)![0])).ownedLayers));
      kept &&= own.length > 0 && own.every(([, tensor]) => isKept(tensor));
    }
    return rows;
  };
  let kept = true;
  const differences = [];
  let largestLogit = 0;
  for (const passes of sequences) {
    const want = await logits(cpu, passes);
    for (const row of want) for (const logit of row) largestLogit = Math.max(largestLogit, Math.abs(logit));
    differences.push(largestDifference(await logits(accelerator, passes), want));
  }
  const placements: Record<string, Placement> = {};
  for (const id of ids) placements[id] = (await accelerator.use(id)).placement;
  await cpu.close();
  await accelerator.close();
  const attended = [];
  const shape = { heads: 4, keyHeads: 2, width: 32 };
  for (const one of attention) attended.push(largestDifference([await attend(shape, one, provider)], [await attend(shape, one, 'cpu')]));
  const bytes = Object.fromEntries(Object.entries(placements).map(([id, placement]) => [id, acceleratorBytes(placement)]));
  return { differences, largestLogit, placements, acceleratorBytes: bytes, kept, passTokens, attention: attended };
}

const task = JSON.parse(process.argv[2]!) as AcceleratorTask;
process.stdout.write(JSON.stringify(await run(task)));
