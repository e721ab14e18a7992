// Speed and memory of the engine at full size, on a package of random weights in the published shape. What is measured and how: bench/README.md.
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { prepare, PROVIDERS, readManifest, runtime, sweepPrepared } from '@matfleet/inference';
import { footprint, sliceById } from '@matfleet/model';
import { probeMemoryBandwidth } from '../apps/agent/dist/hardware/bandwidth.js';
import { renderReport, renderSlices } from './support/engine-report.mjs';
import { runLlamaBench, versus } from './support/llama-bench.mjs';
import { writeTable } from './support/markdown.mjs';
import { runInMemoryGroup } from './support/memory-group.mjs';
import { bytesOf, whole } from './support/options.mjs';
import { cachedBytes, dropFromPageCache } from './support/page-cache.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);
const RUN_TIMEOUT_MS = 3_600_000;
const SCRIPT = join(import.meta.dirname, 'support/engine-run.mjs');
/** Longer prompts take minutes: they run in the first repeat alone. */
const LONG_PROMPT_TOKENS = 1024;
const SWITCH_PROMPT_TOKENS = 64;

export const usage = `[options]
  --shape e2b|e4b        whose layers and widths (e2b)
  --slice ID|all         a published slice of it (the shape's own); all: one row for each
  --precision KIND       int4, int8 or fp32 (int4)
  --block N              quantisation block (64)
  --threads N            of one operator (all cores, at most 4)
  --provider KIND        what computes the decoder: cpu, webgpu or cuda (cpu)
  --accelerator NAME     which device that is, for the table
  --prompt 128,512       prompt lengths in tokens (128,512); above ${LONG_PROMPT_TOKENS} in the first repeat alone
  --generate N           tokens after each prompt (64)
  --context N            room for K/V in tokens (the longest prompt and its answer)
  --repeats N            runs of each length; medians are reported (3)
  --cache DIR            where random packages are kept (~/.cache/matfleet/bench)
  --switch a,b,c         then change between these slices at every token
  --switches N           for so many tokens (--generate)
  --prepare              pack the weights for this processor first, as an agent does; with --write anew
  --memory-limit 2GB     run the engine in a memory cgroup of so much, nothing of the package in the page cache before
  --vs 'llama-bench …'   run a peer in alternation: a llama-bench command with -m and nothing else, and print the ratios
  --write                replace the committed table of this shape, slice and block
  --json                 one JSON document on stdout`;

const options = {
  shape: { type: 'string', default: 'e2b' },
  slice: { type: 'string' },
  precision: { type: 'string', default: 'int4' },
  block: { type: 'string', default: '64' },
  threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
  provider: { type: 'string', default: 'cpu' },
  accelerator: { type: 'string' },
  prompt: { type: 'string', default: '128,512' },
  generate: { type: 'string', default: '64' },
  context: { type: 'string' },
  repeats: { type: 'string', default: '3' },
  cache: { type: 'string', default: CACHE },
  switch: { type: 'string' },
  switches: { type: 'string' },
  prepare: { type: 'boolean', default: false },
  'memory-limit': { type: 'string' },
  vs: { type: 'string' },
  write: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
};

export async function run(args) {
  const { values } = parseArgs({ args, options });
  if (!['e2b', 'e4b'].includes(values.shape)) throw new Error(`--shape ${values.shape}: e2b or e4b`);
  const prompts = values.prompt.split(',').map((text) => whole('--prompt', text));
  const [threads, generate, repeats, block] = ['threads', 'generate', 'repeats', 'block'].map((name) => whole(`--${name}`, values[name]));
  const switches = values.switches ? whole('--switches', values.switches) : generate;
  const limitBytes = values['memory-limit'] && bytesOf('--memory-limit', values['memory-limit']);
  const dir = await randomPackage({ ...values, block });
  const manifest = await readManifest(dir);
  const all = values.slice === 'all';
  // What was prepared for the largest slice serves its parts too.
  const slice = all ? largestOf(manifest) : sliceById(manifest, values.slice ?? values.shape);
  const switching = all ? [] : (values.switch?.split(',') ?? []).map((id) => sliceById(manifest, id).id);
  const longest = Math.max(Math.max(...prompts) + generate, switching.length > 0 ? SWITCH_PROMPT_TOKENS + switches : 0);
  const contextTokens = values.context ? whole('--context', values.context) : longest;

  // Engines use what they find: a run without must not find what an earlier run made, and a table tells how long it takes.
  if (!values.prepare || values.write) await sweepPrepared(dir, []);
  const prepared = values.prepare ? await prepare({ manifest, storeDir: dir, sliceId: slice.id, threads }) : undefined;
  if (!PROVIDERS.includes(values.provider)) throw new Error(`--provider ${values.provider}: ${PROVIDERS.join(', ')}`);
  const terms = { dir, threads, provider: values.provider, generate, contextTokens, repeats: 1, switchPromptTokens: SWITCH_PROMPT_TOKENS };
  const packageBytes = footprint(manifest, slice, contextTokens).downloadBytes;
  const common = {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    loadBefore: loadavg()[0],
    onnxRuntime: runtime.version,
    shape: values.shape,
    precision: manifest.precision,
    threads,
    ...(values.provider !== 'cpu' && { provider: values.provider, accelerator: values.accelerator }),
    generate,
    contextTokens,
    repeats,
    bandwidthBytesPerSecond: await bandwidthOf(threads),
    ...(prepared && { prepared, packageBytes, deviceBytes: packageBytes + prepared.bytes, diskRatio: 1 + prepared.bytes / packageBytes }),
  };
  const work = { manifest, terms, prompts, repeats, limitBytes, bandwidth: common.bandwidthBytesPerSecond, vs: values.vs };
  const report = { ...common, ...(all ? await everySlice(work, slice) : await oneSlice(work, slice, switching, switches)) };
  const text = (all ? renderSlices : renderReport)(report);
  if (values.write) await writeTable(nameOf(report, values), `# ${titleOf(report)}\n\n\`${commandOf(args)}\`\n\n${text}`);
  console.log(values.json ? JSON.stringify(report, null, 2) : text);
  return 0;
}

async function oneSlice({ manifest, terms, prompts, repeats, limitBytes, bandwidth, vs }, slice, switching, switches) {
  const [ours, theirs] = [[], []];
  // In alternation, so that a neighbour's noise meets both.
  for (let repeat = 0; repeat < repeats; repeat++) {
    console.error(`run ${repeat + 1} of ${repeats}`);
    const short = repeat === 0 ? prompts : prompts.filter((length) => length <= LONG_PROMPT_TOKENS);
    const last = repeat === repeats - 1;
    ours.push(await measure({ ...terms, sliceId: slice.id, prompts: short, ...(last && { switching, switches }) }, limitBytes));
    if (vs) theirs.push(await runLlamaBench(vs, { threads: terms.threads, prompts: short, generate: terms.generate }));
  }
  const lengths = lengthsOf(ours, { manifest, slice, prompts, generate: terms.generate, bandwidth });
  // Memory after all lengths were answered, the longest ones too.
  const { afterLoad, memory } = ours[0];
  const { stats, switched, group } = ours.at(-1);
  return {
    slice: slice.id,
    loadMs: median(ours.map(({ loadMs }) => loadMs)),
    firstTokenMs: median(ours.map(({ firstTokenMs }) => firstTokenMs)),
    lengths: vs ? lengths.map((row) => ({ ...row, ...versus(theirs, row) })) : lengths,
    afterLoad,
    acceleratorBytes: stats.acceleratorBytes,
    ...memory,
    ...(switched && {
      switched: switched.slices,
      switchMs: median(switched.slices.map((row) => row.switchedMs - row.aloneMs)),
      switching: { ...switched.during, ...ours.at(-1).memory },
    }),
    ...(group && { memoryGroup: group }),
    pleRowsRead: stats.pleRowsRead,
    pleCacheHits: stats.pleCacheHits,
  };
}

async function everySlice({ manifest, terms, prompts, repeats, limitBytes, bandwidth }, largest) {
  const runs = new Map(manifest.slices.map(({ id }) => [id, []]));
  for (let repeat = 0; repeat < repeats; repeat++)
    for (const [at, { id }] of manifest.slices.entries()) {
      runs.get(id).push(await measure({ ...terms, sliceId: id, otherSlices: [largest.id], mostOpenSlices: 1, prompts }, limitBytes));
      const { interTokenMs } = runs.get(id).at(-1).runs[0];
      console.error(
        `${repeat * manifest.slices.length + at + 1} of ${repeats * manifest.slices.length}: ${id}, ${(1000 / median(interTokenMs)).toFixed(1)} tokens/s`,
      );
    }
  return {
    slices: manifest.slices.map((slice) => {
      const ours = runs.get(slice.id);
      const { downloadBytes, weightsBytes, headBytes } = footprint(manifest, slice, terms.contextTokens);
      return {
        slice: slice.id,
        layers: slice.ffn.length,
        downloadBytes,
        residentWeightsBytes: weightsBytes + headBytes,
        loadMs: median(ours.map(({ loadMs }) => loadMs)),
        firstTokenMs: median(ours.map(({ firstTokenMs }) => firstTokenMs)),
        lengths: lengthsOf(ours, { manifest, slice, prompts, generate: terms.generate, bandwidth }),
        ...ours.at(-1).memory,
      };
    }),
  };
}

function lengthsOf(ours, { manifest, slice, prompts, generate, bandwidth }) {
  return prompts.map((promptTokens) => {
    const runs = ours.flatMap((one) => one.runs).filter((row) => row.promptTokens === promptTokens);
    const interTokenMs = median(runs.flatMap((row) => row.interTokenMs));
    const bytesReadPerToken = footprint(manifest, slice, promptTokens + Math.round(generate / 2)).bytesPerToken;
    return {
      promptTokens,
      prefillTokensPerSecond: median(runs.map(({ ttftMs }) => (promptTokens * 1000) / ttftMs)),
      decodeTokensPerSecond: 1000 / interTokenMs,
      bytesReadPerToken,
      rooflineShare: bytesReadPerToken / (interTokenMs / 1000) / bandwidth,
    };
  });
}

async function measure(terms, limitBytes) {
  const args = [SCRIPT, JSON.stringify(terms)];
  if (!limitBytes) {
    const { stdout } = await exec(process.execPath, args, { maxBuffer: 2 ** 26, timeout: RUN_TIMEOUT_MS });
    return JSON.parse(stdout);
  }
  const files = await filesOf(terms.dir);
  dropFromPageCache(files);
  const left = cachedBytes(files);
  const { stdout, group } = await runInMemoryGroup(limitBytes, process.execPath, args, RUN_TIMEOUT_MS);
  return { ...JSON.parse(stdout), group: { ...group, pageCacheBeforeBytes: left } };
}

async function filesOf(dir) {
  const found = await Promise.all(
    ['chunks', 'prepared'].map((name) => readdir(join(dir, name), { recursive: true, withFileTypes: true }).catch(() => [])),
  );
  return found
    .flat()
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Reads of main memory by as many processes as there are threads, at the same time. */
async function bandwidthOf(threads) {
  const rates = await Promise.all(Array.from({ length: threads }, () => probeMemoryBandwidth()));
  return rates.reduce((sum, rate) => sum + rate, 0);
}

function largestOf(manifest) {
  const bytes = (slice) => footprint(manifest, slice, 1).weightsBytes;
  return manifest.slices.reduce((most, slice) => (bytes(slice) > bytes(most) ? slice : most));
}

function nameOf({ shape, slice, slices, lengths, precision }, values) {
  const longest = Math.max(...(lengths ?? []).map(({ promptTokens }) => promptTokens));
  const what = slices ? [shape, 'slices'] : slice === shape ? [shape] : [shape, slice];
  const how = [
    values.provider !== 'cpu' && values.provider,
    values.switch && 'switching',
    longest > LONG_PROMPT_TOKENS && `prompt-${longest}`,
    values['memory-limit'] && `limit-${values['memory-limit']}`,
  ];
  return ['engine', ...what, precision.kind, precision.block, ...how].filter(Boolean).join('-');
}

function titleOf({ shape, slice, slices, memoryGroup, switchMs }) {
  if (slices) return `The engine: every published slice of ${shape}`;
  const how = [switchMs !== undefined && 'another slice at every token', memoryGroup && `with ${memoryGroup.limitBytes / 1e9} GB`];
  return [`The engine: ${slice === shape ? shape : `${slice} of ${shape}`}`, ...how].filter(Boolean).join(', ');
}

/** The peer's own path and the package's say nothing to a reader. */
function commandOf(args) {
  const shown = args.filter((arg, at) => arg !== '--write' && arg !== '--json' && arg !== '--cache' && args[at - 1] !== '--cache');
  return [
    'npm run bench -- engine',
    ...shown.map((arg, at) => (shown[at - 1] === '--vs' ? `'${basename(arg.split(' ')[0])} -m …'` : arg.includes(' ') ? `'${arg}'` : arg)),
    '--write',
  ].join(' ');
}
