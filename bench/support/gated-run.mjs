// Three widths of one model in a process of its own, as one session with gated bands or as one session each. Takes one JSON document as its
// argument, prints one on stdout.
import { randomUUID } from 'node:crypto';
import { unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readManifest } from '@matfleet/inference';
import { bandEdges, chunksOf, sliceById, sliceWidths } from '@matfleet/model';
import { Tensor } from 'onnxruntime-node';
import { Decoder } from '../../libs/inference/dist/decoder.js';
import { EmbeddingTables } from '../../libs/inference/dist/embedding-tables.js';
import { buildForward } from '../../libs/inference/dist/gemma3n.js';
import { GraphBuilder } from '../../libs/inference/dist/graph-builder.js';
import { createSession } from '../../libs/inference/dist/onnx.js';
import { readPrepared } from '../../libs/inference/dist/prepared.js';
import { Weights } from '../../libs/inference/dist/weights.js';
import { gateExtension } from './gated-graph.mjs';
import { memoryOf } from './memory.mjs';

const { dir, sliceId, way, threads, tokens, prompt } = JSON.parse(process.argv[2]);
const manifest = await readManifest(dir);
const { config } = manifest;
const slice = sliceById(manifest, sliceId);
const prepared = await readPrepared(manifest, dir, slice);
const tables = new EmbeddingTables(manifest, chunksOf(manifest, slice), dir);
const [narrow, wide] = [bandEdges(manifest)[0][0], bandEdges(manifest)[0].at(-1)];
/** Which layers are wide: none, every other one, all. */
const widths = { narrow: () => false, 'half the layers wide': (layer) => layer % 2 === 1, wide: () => true };
const layersOf = (isWide) => Array.from({ length: config.numHiddenLayers }, (_, layer) => isWide(layer));

async function openGated() {
  const g = new GraphBuilder();
  const weights = new Weights(manifest, chunksOf(manifest, slice), dir, { prepared });
  const shape = { config, slice, widths: sliceWidths(config, slice), bandEdges: bandEdges(manifest) };
  buildForward(g, shape, weights);
  weights.close();
  const gates = gateExtension(g, shape, narrow);
  const path = join(dir, `.gated-${randomUUID()}.onnx`);
  let session;
  try {
    await writeFile(path, g.toBytes());
    session = await createSession(path, { threads });
  } finally {
    await unlink(path);
  }
  let open = {};
  const through = {
    inputNames: session.inputNames,
    runInto: (feeds, into) => session.runInto({ ...feeds, ...open }, into),
    close: () => session.close(),
  };
  const decoder = new Decoder(config, shape, through, tables, false, 'cpu', false);
  const [no, yes] = [0, 1].map((value) => new Tensor('bool', Uint8Array.of(value), []));
  const use = (isWide) => {
    open = Object.fromEntries(gates.map((name, layer) => [name, isWide(layer) ? yes : no]));
    return decoder;
  };
  return { decoders: Object.fromEntries(Object.entries(widths).map(([name, isWide]) => [name, () => use(isWide)])), close: () => decoder.close() };
}

async function openEach() {
  const opened = {};
  for (const [name, isWide] of Object.entries(widths)) {
    const ffn = layersOf(isWide).map((is) => (is ? wide : narrow));
    opened[name] = await Decoder.open(manifest, dir, { ffn, skip: [] }, { prepared, threads, tables });
  }
  return {
    decoders: Object.fromEntries(Object.entries(opened).map(([name, decoder]) => [name, () => decoder])),
    close: () => Promise.all(Object.values(opened).map((decoder) => decoder.close())),
  };
}

const ids = (count, seed) => Array.from({ length: count }, (_, i) => 3 + (((i + seed) * 7919) % (config.vocabSizePerLayerInput - 3)));
const started = performance.now();
const { decoders, close } = way === 'gated' ? await openGated() : await openEach();
const openMs = performance.now() - started;
const afterOpen = await memoryOf();

const cache = decoders.wide().newCache(1024, 512);
const names = Object.keys(widths);
const alone = {};
const logits = {};
for (const name of names) {
  cache.reset();
  const decoder = decoders[name]();
  const [row] = await decoder.forward(ids(prompt, 0), cache);
  logits[name] = Array.from(row.subarray(0, 1000));
  await decoder.forward(ids(1, 1), cache);
  alone[name] = await times(tokens, () => decoder);
}
const afterRuns = await memoryOf();
// Another width at every token, the K/V kept.
const turns = await times(tokens * names.length, (at) => decoders[names[at % names.length]]());
const switched = Object.fromEntries(names.map((name, which) => [name, turns.filter((_, at) => at % names.length === which)]));
await close();
tables.close();
process.stdout.write(JSON.stringify({ openMs, afterOpen, afterRuns, alone, switched, logits }));

async function times(count, decoderAt) {
  const ms = [];
  for (let at = 0; at < count; at++) {
    const began = performance.now();
    await decoderAt(at).forward(ids(1, at + 2), cache);
    ms.push(performance.now() - began);
  }
  return ms;
}
