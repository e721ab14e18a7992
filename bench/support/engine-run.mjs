// One measurement of one slice in a process of its own, so that nothing but the engine is in its memory. Takes one JSON document as its
// argument, prints one on stdout.
import { openEngine, readManifest } from '@matfleet/inference';
import { memoryOf, trafficOf } from './memory.mjs';
import { median } from './statistics.mjs';

const terms = JSON.parse(process.argv[2]);
const { dir, sliceId, threads, provider, spinning, prompts, generate, contextTokens, repeats, switching = [], mostOpenSlices } = terms;
const otherSlices = terms.otherSlices ?? switching;
const manifest = { ...(await readManifest(dir)), golden: [] };
// Random weights choose stop tokens too; every run shall be as long as asked.
manifest.config = { ...manifest.config, eosTokenIds: [] };

/** Ids over the whole vocabulary, the same in every run: rows of the per-layer embeddings are then read from all over the file. */
function randomIds(count, seed) {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + Math.floor((state / 2 ** 32) * (manifest.config.vocabSizePerLayerInput - 3));
  });
}

const before = performance.now();
const engine = await openEngine({ manifest, storeDir: dir, sliceId, otherSlices, mostOpenSlices, threads, provider, spinning, contextTokens });
const loadMs = performance.now() - before;
const afterLoad = await memoryOf();

async function answer(promptIds, maxTokens, options = {}) {
  const at = [];
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  for await (const _ of engine.generate(promptIds, { maxTokens, reuse: 'off', ...options })) at.push(performance.now());
  const { user, system } = process.cpuUsage(cpuBefore);
  return { ttftMs: at[0] - started, interTokenMs: at.slice(1).map((t, i) => t - at[i]), cpuMs: (user + system) / 1000, wallMs: at.at(-1) - started };
}

const warm = await answer(randomIds(32, 1), 4);
const runs = [];
for (const promptTokens of prompts)
  for (let repeat = 0; repeat < repeats; repeat++) {
    runs.push({ promptTokens, ...(await answer(randomIds(promptTokens, 7 + repeat), generate)) });
  }

/** Each slice alone, then another one at every token: what a token costs in both, and what the process reads and maps meanwhile. */
async function changeSlices() {
  const prompt = randomIds(terms.switchPromptTokens, 3);
  const alone = {};
  for (const id of switching) {
    await engine.loadSlice(id);
    alone[id] = (await answer(prompt, generate, { sliceId: id })).interTokenMs;
  }
  const open = engine.openSlices.length;
  const started = await trafficOf();
  await answer(prompt, generate, { sliceId: switching[0] });
  const before = await trafficOf();
  const all = (await answer(prompt, terms.switches, { sliceId: switching[0], sliceFor: (n) => switching[n % switching.length] })).interTokenMs;
  const after = await trafficOf();
  const growth = (name) => after[name] - before[name];
  const passes = (tokens) => prompt.length + tokens - 1;
  return {
    // Interval i ends with token i + 1, which slice (i + 1) mod n computed.
    slices: switching.map((id, at) => {
      const changed = all.filter((_, i) => (i + 1) % switching.length === at);
      return { id, aloneMs: median(alone[id]), switchedMs: median(changed), tokens: changed.length };
    }),
    during: {
      tokens: terms.switches,
      loads: engine.openSlices.length - open,
      fileBytesPerToken: growth('fileBytesRead') / passes(terms.switches),
      fileBytesPerTokenAlone: (before.fileBytesRead - started.fileBytesRead) / passes(generate),
      majorFaults: growth('majorFaults'),
      rssGrowthBytes: growth('rssBytes'),
      addressGrowthBytes: growth('addressBytes'),
    },
  };
}
const switched = switching.length > 0 ? await changeSlices() : undefined;
const stats = engine.stats();
const memory = await memoryOf();
await engine.close();
process.stdout.write(JSON.stringify({ loadMs, afterLoad, firstTokenMs: warm.ttftMs, runs, switched, stats, memory }));
