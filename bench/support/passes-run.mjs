// Time of one pass over 1, 2, … tokens at the same place of a context, in a process of its own. Takes one JSON document as its argument, prints
// one on stdout.
import { readManifest } from '@matfleet/inference';
import { sliceById } from '@matfleet/model';
import { SliceSet } from '../../libs/inference/dist/slice-set.js';

const { dir, sliceId, threads, contextTokens, lengths, repeats } = JSON.parse(process.argv[2]);
const manifest = await readManifest(dir);
const slices = await SliceSet.create(manifest, dir, [sliceById(manifest, sliceId)], { threads, mostOpen: 1 });
const decoder = await slices.use(sliceId);
const PASS = 128;
const cache = slices.newCache(contextTokens + PASS, PASS);

let state = 1;
const randomIds = (count) =>
  Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + Math.floor((state / 2 ** 32) * (manifest.config.vocabSizePerLayerInput - 3));
  });

while (cache.length < contextTokens) await decoder.forward(randomIds(Math.min(PASS, contextTokens - cache.length)), cache);
const longest = Math.max(...lengths);
const ms = Object.fromEntries(lengths.map((length) => [length, []]));
// The lengths take turns, so that a neighbour's noise meets all. The same tokens in each, rows of the embeddings warm.
const ids = randomIds(longest);
await decoder.forward(ids, cache, longest);
cache.rollBack(contextTokens);
for (let repeat = 0; repeat < repeats; repeat++)
  for (const length of lengths) {
    const started = performance.now();
    await decoder.forward(ids.slice(0, length), cache, length);
    ms[length].push(performance.now() - started);
    cache.rollBack(contextTokens);
  }

/** Logits of the longest pass beside those of single steps. */
const best = (row) => row.reduce((at, value, i) => (value > row[at] ? i : at), 0);
const together = (await decoder.forward(ids, cache, longest)).map((row) => row.slice());
cache.rollBack(contextTokens);
let [largest, changed] = [0, 0];
for (const [at, id] of ids.entries()) {
  const alone = (await decoder.forward([id], cache))[0];
  for (let v = 0; v < alone.length; v++) largest = Math.max(largest, Math.abs(alone[v] - together[at][v]));
  if (best(alone) !== best(together[at])) changed++;
}
await slices.close();
process.stdout.write(JSON.stringify({ ms, largest, changed, compared: ids.length }));
