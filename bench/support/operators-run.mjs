// A token taken apart, in a process of its own: the quantised products of one pass alone and whole passes in turn, then passes under ONNX
// Runtime's profiler. Takes one JSON document as its argument, prints one on stdout.
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readManifest } from '@matfleet/inference';
import { bandEdges, chunksOf, sliceById, sliceWidths } from '@matfleet/model';
import { InferenceSession } from 'onnxruntime-node';
import { Decoder } from '../../libs/inference/dist/decoder.js';
import { buildForward } from '../../libs/inference/dist/gemma3n.js';
import { GraphBuilder } from '../../libs/inference/dist/graph-builder.js';
import { createSession, float32 } from '../../libs/inference/dist/onnx.js';
import { readPrepared } from '../../libs/inference/dist/prepared.js';
import { Weights } from '../../libs/inference/dist/weights.js';

const { dir, sliceId, threads, prompt, repeats } = JSON.parse(process.argv[2]);
const manifest = await readManifest(dir);
const slice = sliceById(manifest, sliceId);
const prepared = await readPrepared(manifest, dir, slice);
const ids = (count) => Array.from({ length: count }, (_, i) => 3 + ((i * 7919) % (manifest.config.vocabSizePerLayerInput - 3)));

const attribute = (node, name) => Number(node.attribute.find((one) => one.name === name).i);
const elements = (tensor) => tensor.dims.reduce((product, dim) => product * Number(dim), 1);

/** The graph of the slice without anything but its quantised products, each fed from outside. */
async function openProducts(count) {
  const g = new GraphBuilder();
  const weights = new Weights(manifest, chunksOf(manifest, slice), dir, { prepared });
  buildForward(g, { config: manifest.config, slice, widths: sliceWidths(manifest.config, slice), bandEdges: bandEdges(manifest) }, weights);
  weights.close();
  const nodes = g.nodes.filter(({ opType }) => opType === 'MatMulNBits');
  const used = new Set(nodes.flatMap(({ input }) => input.slice(1)));
  for (const name of g.initializers.keys()) if (!used.has(name)) g.initializers.delete(name);
  const bytes = [...g.initializers.values()].reduce((sum, one) => sum + elements(one) * (one.dataType === 1 ? 4 : 1), 0);
  [g.nodes, g.inputs, g.outputs] = [nodes, [], []];
  g.renamed.clear();
  const feeds = {};
  for (const [at, node] of nodes.entries()) {
    const [K, N] = [attribute(node, 'K'), attribute(node, 'N')];
    node.input[0] = `x${K}`;
    if (!feeds[`x${K}`]) feeds[g.input(`x${K}`, 'float32', [1, 1, K])] = float32(new Float32Array(K).fill(0.5), [1, 1, K]);
    g.rename(node.output[0], `y${at}`, 'float32', [1, 1, N]);
  }
  const path = join(dir, `.products-${randomUUID()}.onnx`);
  try {
    await writeFile(path, g.toBytes());
    const session = await createSession(path, { threads: count });
    return { bytes, products: nodes.length, once: () => session.run(feeds), close: () => session.close() };
  } finally {
    await unlink(path);
  }
}

async function openTokens(count) {
  const decoder = await Decoder.open(manifest, dir, slice, { prepared, threads: count });
  const cache = decoder.newCache(1024, 512);
  for (let left = prompt; left > 0; left -= 512) await decoder.forward(ids(Math.min(left, 512)), cache);
  const once = async () => {
    await decoder.forward([17], cache);
    cache.rollBack(prompt);
  };
  return { once, close: () => decoder.close() };
}

const timed = async (work) => {
  const started = performance.now();
  await work();
  return performance.now() - started;
};

async function apart(count) {
  const [products, tokens] = [await openProducts(count), await openTokens(count)];
  const [productsMs, tokenMs] = [[], []];
  await products.once();
  for (let repeat = 0; repeat < repeats; repeat++) {
    productsMs.push(await timed(products.once));
    // The first pass after the products finds their weights in the caches, not its own.
    await tokens.once();
    tokenMs.push(await timed(tokens.once));
    await products.once();
  }
  await products.close();
  await tokens.close();
  return { threads: count, bytes: products.bytes, products: products.products, productsMs, tokenMs };
}

/** Mean time of each kind of operator in a pass. */
async function profiled(count) {
  const folder = await mkdtemp(join(tmpdir(), 'matfleet-profile-'));
  const create = InferenceSession.create;
  InferenceSession.create = (graph, options) =>
    create.call(InferenceSession, graph, { ...options, enableProfiling: true, profileFilePrefix: join(folder, 'pass') });
  try {
    const tokens = await openTokens(count);
    for (let repeat = 0; repeat < repeats; repeat++) await tokens.once();
    await tokens.close(); // writes the profile
    const events = JSON.parse(await readFile(join(folder, (await readdir(folder))[0]), 'utf8'));
    const since = events.filter(({ name }) => name === 'model_run').at(-repeats).ts;
    const kinds = new Map();
    for (const { cat, name, ts, dur, args } of events) {
      if (cat !== 'Node' || ts < since || !name.endsWith('_kernel_time')) continue;
      const kind =
        args.op_name === 'MatMulNBits' ? `MatMulNBits ${width(args.input_type_shape[0])} → ${width(args.output_type_shape[0])}` : args.op_name;
      const row = kinds.get(kind) ?? { name: kind, count: 0, ms: 0 };
      kinds.set(kind, { name: kind, count: row.count + 1 / repeats, ms: row.ms + dur / 1000 / repeats });
    }
    return [...kinds.values()].map((row) => ({ ...row, count: Math.round(row.count) })).sort((a, b) => b.ms - a.ms);
  } finally {
    InferenceSession.create = create;
    await rm(folder, { recursive: true, force: true });
  }
}
const width = (shape) => Object.values(shape)[0].at(-1);

const runs = [];
for (const count of threads) runs.push(await apart(count));
const { bytes, products } = runs[0];
process.stdout.write(JSON.stringify({ bytes, products, threads: runs, operators: await profiled(threads.at(-1)) }));
