// For specs only: computes the same on an accelerator and on the CPU and prints how far they differ. A process of its own, because graphics
// drivers are found by environment variables that count at its start. Its argument is one JSON document, its result one on stdout.
import { prefillChunkTokens, sliceById } from '@matfleet/model';
import { GraphBuilder } from './graph-builder.js';
import { KERNELS, type Provider } from './kernels.js';
import { createSession, float32, floatsOf, int32, isKept } from './onnx.js';
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
  /** Of each attention case's outputs. */
  readonly attention: readonly number[];
}

export interface AcceleratorTask {
  readonly packageDir: string;
  readonly provider: Provider;
  readonly sequences: readonly Passes[];
  readonly attention: readonly AttentionCase[];
}

/** One attention operator over a context that ends with the queries' own positions. */
export interface AttentionCase {
  readonly queries: number;
  readonly context: number;
  /** -1: none. */
  readonly window: number;
  /** Keys and values are all there already, as in a layer that reads another's. */
  readonly shares: boolean;
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
  const passTokens = Math.min(prefillChunkTokens(manifest.config), KERNELS[provider].mostPassTokens);
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
  for (const one of attention) attended.push(largestDifference([await attend(one, provider)], [await attend(one, 'cpu')]));
  const bytes = Object.fromEntries(Object.entries(placements).map(([id, placement]) => [id, acceleratorBytes(placement)]));
  return { differences, largestLogit, placements, acceleratorBytes: bytes, kept, attention: attended };
}

const [HEADS, KV_HEADS, WIDTH, ROOM] = [4, 2, 32, 128];

/** The operator's output; the same inputs for the same case. */
async function attend({ queries, context, window, shares }: AttentionCase, provider: Provider): Promise<Float32Array> {
  const g = new GraphBuilder();
  const fresh = shares ? 0 : queries;
  const input = (name: string, positions: number, width: number) => g.input(name, 'float32', [1, positions, width]);
  const [query, key, value] = [
    input('query', queries, HEADS * WIDTH),
    input('key', fresh, KV_HEADS * WIDTH),
    input('value', fresh, KV_HEADS * WIDTH),
  ];
  const past = (name: string) => g.input(name, 'float32', [1, KV_HEADS, ROOM, WIDTH]);
  const inputs = [query, key, value, past('past_key'), past('past_value'), g.input('last', 'int32', [1]), g.input('length', 'int32', [])];
  const attributes = { num_heads: HEADS, kv_num_heads: KV_HEADS, scale: { float: 1 }, local_window_size: window };
  const [output, presentKey, presentValue] = g.contribs('GroupQueryAttention', inputs, 3, attributes) as [string, string, string];
  g.output('output', output, 'float32', [1, queries, HEADS * WIDTH]);
  g.rename(presentKey, 'present_key', 'float32', [1, KV_HEADS, ROOM, WIDTH]);
  g.rename(presentValue, 'present_value', 'float32', [1, KV_HEADS, ROOM, WIDTH]);
  let state = 1;
  const random = (...shape: number[]) => {
    const next = (): number => ((state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32) * 2 - 1;
    return float32(Float32Array.from({ length: shape.reduce((a, b) => a * b) }, next), shape);
  };
  const session = await createSession(g.toBytes(), { threads: 1, provider });
  const feeds = {
    query: random(1, queries, HEADS * WIDTH),
    key: random(1, fresh, KV_HEADS * WIDTH),
    value: random(1, fresh, KV_HEADS * WIDTH),
    past_key: random(1, KV_HEADS, ROOM, WIDTH),
    past_value: random(1, KV_HEADS, ROOM, WIDTH),
    last: int32(context - 1, [1]),
    length: int32(context, []),
  };
  const { output: result } = await session.run(feeds);
  await session.close();
  return floatsOf(result!);
}

const task = JSON.parse(process.argv[2]!) as AcceleratorTask;
process.stdout.write(JSON.stringify(await run(task)));
