// Speed and memory of the engine at full size, on a package of random weights in the published shape. What is measured and how: bench/README.md.
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { basename } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { prepare, readManifest, runtime, sweepPrepared } from '@matfleet/inference';
import { footprint, sliceById } from '@matfleet/model';
import { probeMemoryBandwidth } from '../apps/agent/dist/hardware/bandwidth.js';
import { whole } from './support/options.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);

export const usage = `[options]
  --shape e2b|e4b        whose layers and widths (e2b)
  --slice ID             a published slice of it (the shape's own)
  --precision KIND       int4, int8 or fp32 (int4)
  --block N              quantisation block (64)
  --threads N            of one operator (all cores, at most 4)
  --prompt 128,512       prompt lengths in tokens (128,512)
  --generate N           tokens after each prompt (64)
  --context N            room for K/V in tokens (the longest prompt and its answer)
  --repeats N            runs of each length; medians are reported (3)
  --cache DIR            where random packages are kept (~/.cache/matfleet/bench)
  --switch a,b,c         also change between these slices at every token, --generate tokens long
  --prepare              pack the weights for this processor first, as an agent does
  --vs 'llama-bench …'   run a peer in alternation: a llama-bench command with -m and nothing else, and print the ratios
  --write                replace the committed table of this shape, slice and block
  --json                 one JSON document on stdout`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e2b' },
      slice: { type: 'string' },
      precision: { type: 'string', default: 'int4' },
      block: { type: 'string', default: '64' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      prompt: { type: 'string', default: '128,512' },
      generate: { type: 'string', default: '64' },
      context: { type: 'string' },
      repeats: { type: 'string', default: '3' },
      cache: { type: 'string', default: CACHE },
      switch: { type: 'string' },
      prepare: { type: 'boolean', default: false },
      vs: { type: 'string' },
      write: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  if (!['e2b', 'e4b'].includes(values.shape)) throw new Error(`--shape ${values.shape}: e2b or e4b`);
  const prompts = values.prompt.split(',').map((text) => whole('--prompt', text));
  const threads = whole('--threads', values.threads);
  const generate = whole('--generate', values.generate);
  const repeats = whole('--repeats', values.repeats);
  const contextTokens = values.context ? whole('--context', values.context) : Math.max(...prompts) + generate;
  const dir = await randomPackage({ ...values, block: whole('--block', values.block) });
  const manifest = await readManifest(dir);
  const slice = sliceById(manifest, values.slice ?? values.shape);

  const switching = values.switch ? values.switch.split(',').map((id) => sliceById(manifest, id).id) : [];
  // Engines use what they find: a run without must not find what an earlier run made.
  if (!values.prepare) await sweepPrepared(dir, []);
  const prepared = values.prepare ? await prepare({ manifest, storeDir: dir, sliceId: slice.id, threads }) : undefined;

  const bandwidth = await bandwidthOf(threads);
  const ours = [];
  const theirs = [];
  // In alternation, so that a neighbour's noise meets both.
  for (let repeat = 0; repeat < repeats; repeat++) {
    console.error(`run ${repeat + 1} of ${repeats}`);
    ours.push(await measure({ dir, sliceId: slice.id, threads, prompts, generate, contextTokens, repeats: 1, switching }));
    if (values.vs) theirs.push(await measurePeer(values.vs, { threads, prompts, generate }));
  }

  const bytesPerToken = (context) => footprint(manifest, slice, context).bytesPerToken;
  const lengths = prompts.map((promptTokens) => {
    const runs = ours.flatMap((one) => one.runs).filter((row) => row.promptTokens === promptTokens);
    const prefill = median(runs.map(({ ttftMs }) => (promptTokens * 1000) / ttftMs));
    const interTokenMs = median(runs.flatMap((row) => row.interTokenMs));
    const bytes = bytesPerToken(promptTokens + Math.round(generate / 2));
    return {
      promptTokens,
      prefillTokensPerSecond: prefill,
      decodeTokensPerSecond: 1000 / interTokenMs,
      bytesReadPerToken: bytes,
      rooflineShare: bytes / (interTokenMs / 1000) / bandwidth,
      ...(values.vs && versus(theirs, promptTokens, prefill, 1000 / interTokenMs)),
    };
  });
  const last = ours.at(-1);
  const report = {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model,
    onnxRuntime: runtime.version,
    shape: values.shape,
    slice: slice.id,
    precision: manifest.precision,
    threads,
    generate,
    contextTokens,
    loadMs: median(ours.map((one) => one.loadMs)),
    firstTokenMs: median(ours.map((one) => one.firstTokenMs)),
    bandwidthBytesPerSecond: bandwidth,
    lengths,
    afterLoad: last.afterLoad,
    ...last.memory,
    ...(prepared && { prepared }),
    ...(switching.length > 0 && {
      switched: last.switched.map(({ id, aloneMs, switchedMs }) => ({
        id,
        aloneMs: median(aloneMs),
        switchedMs: median(switchedMs),
        tokens: switchedMs.length,
      })),
    }),
    pleRowsRead: last.stats.pleRowsRead,
    pleCacheHits: last.stats.pleCacheHits,
  };
  if (values.write) {
    const file = new URL(`results/engine-${slice.id}-${manifest.precision.kind}-${manifest.precision.block}.md`, import.meta.url);
    // The peer's own path says nothing to a reader.
    const command = args.filter((arg) => arg !== '--write').map((arg) => (arg.includes(' ') ? `'${basename(arg.split(' ')[0])} -m …'` : arg));
    await writeFile(file, `# The engine: ${slice.id} of ${values.shape}\n\n\`npm run bench -- engine ${command.join(' ')}\`\n\n${render(report)}\n`);
  }
  console.log(values.json ? JSON.stringify(report, null, 2) : render(report));
  return 0;
}

async function measure(terms) {
  const script = new URL('support/engine-run.mjs', import.meta.url).pathname;
  const { stdout } = await exec(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 26, timeout: 3_600_000 });
  return JSON.parse(stdout);
}

/** Reads of main memory by as many processes as there are threads, at the same time. */
async function bandwidthOf(threads) {
  const rates = await Promise.all(Array.from({ length: threads }, () => probeMemoryBandwidth()));
  return rates.reduce((sum, rate) => sum + rate, 0);
}

/** llama-bench: prompt processing alone, and decoding after a context of that many tokens. */
async function measurePeer(command, { threads, prompts, generate }) {
  const [program, ...rest] = command.split(/\s+/);
  const lists = ['-t', threads, '-r', 1, '-p', prompts.join(','), '-n', generate, '-d', 0, '-o', 'json'].map(String);
  const deep = ['-t', threads, '-r', 1, '-p', 0, '-n', generate, '-d', prompts.join(','), '-o', 'json'].map(String);
  const rows = [];
  for (const options of [lists, deep]) {
    const { stdout } = await exec(program, [...rest, ...options], { maxBuffer: 2 ** 26, timeout: 3_600_000 });
    rows.push(...JSON.parse(stdout));
  }
  return rows.map((row) => ({ prompt: row.n_prompt, generated: row.n_gen, depth: row.n_depth, tokensPerSecond: row.avg_ts }));
}

function versus(runs, promptTokens, prefill, decode) {
  const of = (matches) =>
    median(
      runs
        .flat()
        .filter(matches)
        .map(({ tokensPerSecond }) => tokensPerSecond),
    );
  const peerPrefill = of((row) => row.prompt === promptTokens && row.generated === 0);
  const peerDecode = of((row) => row.prompt === 0 && row.generated > 0 && row.depth === promptTokens);
  return {
    peerPrefillTokensPerSecond: peerPrefill,
    peerDecodeTokensPerSecond: peerDecode,
    prefillRatio: prefill / peerPrefill,
    decodeRatio: decode / peerDecode,
  };
}

function render(report) {
  const mb = (bytes) => (bytes / 1e6).toFixed(0);
  const withPeer = report.lengths.some((row) => row.decodeRatio !== undefined);
  const header = [
    'prompt',
    'prefill tokens/s',
    'decode tokens/s',
    'MB read per token',
    'of the roofline',
    ...(withPeer ? ['prefill ratio', 'decode ratio'] : []),
  ];
  const rows = report.lengths.map((row) => [
    row.promptTokens,
    row.prefillTokensPerSecond.toFixed(1),
    row.decodeTokensPerSecond.toFixed(2),
    mb(row.bytesReadPerToken),
    `${(100 * row.rooflineShare).toFixed(0)} %`,
    ...(withPeer ? [`${row.prefillRatio.toFixed(2)}x`, `${row.decodeRatio.toFixed(2)}x`] : []),
  ]);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    `${report.shape}, slice ${report.slice}, ${report.precision.kind} block ${report.precision.block}, ${report.threads} threads, ${report.cpu}, ONNX Runtime ${report.onnxRuntime}, ${report.date}`,
    '',
    line(header),
    line(header.map(() => '---:')),
    ...rows.map(line),
    '',
    `- load ${report.loadMs.toFixed(0)} ms; first token after a 32-token prompt ${report.firstTokenMs.toFixed(0)} ms; memory bandwidth ${(report.bandwidthBytesPerSecond / 1e9).toFixed(1)} GB/s`,
    `- MB after the run: resident ${mb(report.rssBytes)}, private ${mb(report.privateBytes)}, mapped ${mb(report.fileBytes)}, PSS ${mb(report.pssBytes)}; peak ${mb(report.peakRssBytes)}; after loading: private ${mb(report.afterLoad.privateBytes)}`,
    ...(report.prepared
      ? [
          `- prepared: ${mb(report.prepared.bytes)} MB beside the chunks${report.prepared.made ? ` in ${(report.prepared.ms / 1000).toFixed(1)} s` : ', before'}`,
        ]
      : []),
    ...(report.switched ?? []).map(
      (row) =>
        `- ${row.id}: ${row.aloneMs.toFixed(1)} ms per token alone, ${row.switchedMs.toFixed(1)} ms where the slice changes at every token (${row.tokens} tokens)`,
    ),
  ].join('\n');
}
