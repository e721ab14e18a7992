// Rows of the embedding tables of one package, in a process of its own: one JSON document as the argument, one on stdout.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { openEngine, readManifest } from '@matfleet/inference';
import { footprint, sliceById } from '@matfleet/model';
import { PleStore } from '../../libs/inference/dist/ple-store.js';
import { cachedBytes, dropFromPageCache } from './page-cache.mjs';
import { median } from './statistics.mjs';

const { dir, sliceId, threads, repeats, tokens, promptTokens } = JSON.parse(process.argv[2]);
const manifest = { ...(await readManifest(dir)), golden: [] };
manifest.config = { ...manifest.config, eosTokenIds: [] };
const slice = sliceById(manifest, sliceId);
const planes = manifest.chunks.filter(({ part }) => part.kind === 'plane');
const files = planes.map(({ id }) => join(dir, 'chunks', id));
const V = manifest.config.vocabSizePerLayerInput;
const layers = Array.from({ length: manifest.config.numHiddenLayers }, (_, layer) => layer).filter((layer) => !slice.skip.includes(layer));
const { hotRowBytes } = footprint(manifest, slice, 1);
const rowBytes = PleStore.rowBytes(manifest, planes);

let state = 1;
const uniform = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
const anyId = () => Math.floor(uniform() * V);
/** Rank r with probability in proportion to 1 / r; ranks are spread over the vocabulary. */
const zipf = (() => {
  const sums = new Float64Array(V);
  for (let r = 0, sum = 0; r < V; r++) sums[r] = sum += 1 / (r + 1);
  return () => {
    const x = uniform() * sums[V - 1];
    let [low, high] = [0, V - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle] < x) low = middle + 1;
      else high = middle;
    }
    return (low * 99_991) % V;
  };
})();
const draw = (of, count) => Array.from({ length: count }, of);

const dropped = [];
function drop() {
  dropFromPageCache(files);
  dropped.push(cachedBytes(files));
}
const warm = () => execFileSync('cat', files, { stdio: ['ignore', 'ignore', 'inherit'] });

const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
async function timed(work) {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** One token after another, as in decoding. */
async function decode(name, of, disk, cachedRows, count) {
  const store = new PleStore(manifest, planes, dir, cachedRows);
  for (const id of draw(of, disk === 'warm' ? count : 0)) await store.read([id], layers);
  const before = { ...store.stats };
  const ms = [];
  for (const id of draw(of, count)) ms.push(await timed(() => store.read([id], layers)));
  const after = store.stats;
  store.close();
  const read = after.rowsRead - before.rowsRead;
  const hits = after.cacheHits - before.cacheHits;
  const sum = ms.reduce((a, b) => a + b, 0);
  return {
    ids: name,
    disk,
    count,
    meanUs: (1000 * sum) / count,
    medianUs: 1000 * median(ms),
    p99Us: 1000 * quantile(ms, 0.99),
    rowsPerSecond: (1000 * count) / sum,
    hitRate: hits / (hits + read),
  };
}

async function prompt(name, of, disk, batched) {
  const ms = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    const ids = draw(of, promptTokens);
    const store = new PleStore(manifest, planes, dir, 0);
    if (disk === 'cold') drop();
    ms.push(
      await timed(async () => {
        if (batched) await store.read(ids, layers);
        else for (const id of ids) await store.read([id], layers);
      }),
    );
    store.close();
  }
  return { ids: name, disk, batched, ms: median(ms) };
}

const cachedRows = Math.floor(hotRowBytes / rowBytes);
warm();
const warmBytes = cachedBytes(files);
// Code is compiled by the first calls.
await decode('', anyId, 'warm', 0, 2_000);
const decoding = [];
for (const [name, of] of [
  ['uniform', anyId],
  ['Zipf', zipf],
])
  decoding.push(await decode(name, of, 'warm', cachedRows, tokens));
drop();
decoding.push(await decode('uniform', anyId, 'cold', cachedRows, Math.min(tokens, 500)));
drop();
decoding.push(await decode('Zipf', zipf, 'cold', cachedRows, Math.min(tokens, 500)));
warm();
const prompts = [];
for (const disk of ['warm', 'cold'])
  for (const [name, of] of [
    ['uniform', anyId],
    ['Zipf', zipf],
  ])
    for (const batched of [true, false]) prompts.push(await prompt(name, of, disk, batched));

const engine = await openEngine({ manifest, storeDir: dir, sliceId, threads, contextTokens: 64 });
async function first(ids) {
  const started = performance.now();
  for await (const _ of engine.generate(ids, { maxTokens: 1 })) return performance.now() - started;
}
warm();
await first(draw(anyId, 32));
const firstToken = { warm: [], cold: [] };
let read;
for (let repeat = 0; repeat < repeats; repeat++) {
  warm();
  firstToken.warm.push(await first(draw(anyId, 32)));
  drop();
  const before = engine.stats();
  firstToken.cold.push(await first(draw(anyId, 32)));
  const after = engine.stats();
  read = { ms: after.pleReadMs - before.pleReadMs, rows: after.pleRowsRead - before.pleRowsRead };
}
const stats = engine.stats();
await engine.close();
process.stdout.write(
  JSON.stringify({
    rowBytes,
    rows: V,
    cachedRows,
    hotRowBytes,
    warmBytes,
    fileBytes: planes.reduce((sum, { bytes }) => sum + bytes, 0),
    mostLeftBytes: Math.max(...dropped),
    drops: dropped.length,
    decoding,
    prompts,
    firstTokenMs: { warm: median(firstToken.warm), cold: median(firstToken.cold) },
    lastColdRead: read,
    stats,
  }),
);
