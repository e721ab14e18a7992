// Where a token's time goes by operator, what the quantised products alone take, and what other ways of computing the same would take. What
// is measured and how: bench/README.md.
import { execFile } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs, promisify } from 'node:util';
import { prepare, readManifest, runtime } from '@matfleet/inference';
import { probeMemoryBandwidth } from '../apps/agent/dist/hardware/bandwidth.js';
import { headCandidates } from './support/head-candidates.mjs';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { timeWays } from './support/operator-ways.mjs';
import { whole } from './support/options.mjs';
import { randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);

export const usage = `[options]
  --shape e2b|e4b   whose layers and widths (e2b)
  --block N         quantisation block of its int4 weights (128)
  --threads N       of one operator (all cores, at most 4)
  --prompt N        tokens before the token that is taken apart (128)
  --repeats N       of everything, in alternation; medians are reported (15)
  --limit N         about N of nano's held-out commands, for the coarse head (60)
  --only a,b        parts: profile, ways, head (all)
  --write           replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e2b' },
      block: { type: 'string', default: '128' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      prompt: { type: 'string', default: '128' },
      repeats: { type: 'string', default: '15' },
      only: { type: 'string', default: 'profile,ways,head' },
      limit: { type: 'string', default: '60' },
      write: { type: 'boolean', default: false },
    },
  });
  const [block, threads, prompt, repeats] = ['block', 'threads', 'prompt', 'repeats'].map((name) => whole(`--${name}`, values[name]));
  const parts = values.only.split(',');
  const load = loadavg()[0];
  const texts = [];
  if (parts.includes('profile')) {
    const dir = await randomPackage({ shape: values.shape, precision: 'int4', block });
    await prepare({ manifest: await readManifest(dir), storeDir: dir, sliceId: values.shape, threads });
    const bandwidth = { 1: await probeMemoryBandwidth(), [threads]: await bandwidthOf(threads) };
    const terms = { dir, sliceId: values.shape, threads: [...new Set([1, threads])], prompt, repeats };
    const script = new URL('support/operators-run.mjs', import.meta.url).pathname;
    const { stdout } = await exec(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 26, timeout: 1_200_000 });
    texts.push(renderProfile(JSON.parse(stdout), bandwidth, values));
  }
  if (parts.includes('ways')) texts.push(renderWays(await timeWays(threads, repeats), threads));
  if (parts.includes('head')) texts.push(renderHead(await headCandidates(whole('--limit', values.limit))));
  const command = ['npm run bench -- operators', ...args].join(' ');
  const text = [
    `# Operators: ${values.shape}, int4 block ${block}`,
    '',
    `${today()} · \`${command}\` · ${machine()}, ONNX Runtime ${runtime.version}, load average before ${load.toFixed(1)}`,
    ...texts.flatMap((one) => ['', one]),
  ].join('\n');
  console.log(text);
  if (values.write) await writeTable(`operators-${values.shape}`, text);
  return 0;
}

async function bandwidthOf(threads) {
  const rates = await Promise.all(Array.from({ length: threads }, () => probeMemoryBandwidth()));
  return rates.reduce((sum, rate) => sum + rate, 0);
}

const ms = (value) => value.toFixed(2);

function renderProfile({ bytes, products, threads, operators }, bandwidth, values) {
  const rows = threads.flatMap((one) => {
    const [alone, token] = [median(one.productsMs), median(one.tokenMs)];
    const rate = (time) => `${(bytes / time / 1e6).toFixed(1)} (${((100 * bytes) / (time / 1000) / bandwidth[one.threads]).toFixed(0)} %)`;
    return [
      [one.threads, `the ${products} quantised products alone`, ms(alone), rate(alone)],
      [one.threads, 'a whole token', ms(token), rate(token)],
      [one.threads, 'so everything else', ms(token - alone), '–'],
    ];
  });
  const total = operators.reduce((sum, { ms: one }) => sum + one, 0);
  return [
    `## A token after ${values.prompt}`,
    '',
    `${(bytes / 1e6).toFixed(0)} MB of quantised weights are read per token. Memory bandwidth: ${Object.entries(bandwidth)
      .map(([n, rate]) => `${(rate / 1e9).toFixed(1)} GB/s with ${n}`)
      .join(', ')} reading processes. A token takes turns with the products.`,
    '',
    table(
      [
        ['threads', 'right'],
        ['what', 'left'],
        ['ms', 'right'],
        ['GB/s of weights (of bandwidth)', 'right'],
      ],
      rows,
    ),
    '',
    `By operator, from ONNX Runtime's profiler (which itself costs time at each of them), mean of the same tokens at ${threads.at(-1).threads} threads:`,
    '',
    table(
      [
        ['operator', 'left'],
        ['times', 'right'],
        ['ms', 'right'],
        ['share', 'right'],
        ['µs each', 'right'],
      ],
      operators.map((one) => [one.name, one.count, ms(one.ms), `${((100 * one.ms) / total).toFixed(1)} %`, ((1000 * one.ms) / one.count).toFixed(1)]),
    ),
  ].join('\n');
}

function renderWays(groups, threads) {
  return [
    `## Other ways, ${threads} threads`,
    '',
    'Alone in a graph, random weights, enough of them to exceed the caches; the first of each group is what the engine does.',
    '',
    table(
      [
        ['', 'left'],
        ['way', 'left'],
        ['MB of weights', 'right'],
        ['ms', 'right'],
        ['of the first', 'right'],
      ],
      groups.flatMap(({ title, ways }) =>
        ways.map(({ name, bytes, ms: times, failed }, i) => [
          i === 0 ? title : '',
          name,
          (bytes / 1e6).toFixed(0),
          failed ? failed : ms(median(times)),
          failed || i === 0 ? '' : `${(median(times) / median(ways[0].ms)).toFixed(2)}x`,
        ]),
      ),
    ),
  ].join('\n');
}

function renderHead(scans) {
  const { tokens, vocabulary } = scans[0];
  const at = ({ places }, share) => places[Math.min(places.length - 1, Math.floor(share * places.length))];
  return [
    '## A coarse scan before the head',
    '',
    `Where the coarse scan puts the token that the whole head chooses: nano, ${tokens} tokens of answers, vocabulary ${vocabulary}.`,
    '',
    table(
      [
        ['scan', 'left'],
        ['first', 'right'],
        ['99 % within', 'right'],
        ['all within', 'right'],
      ],
      scans.map((scan) => [
        scan.name,
        `${((100 * scan.places.filter((place) => place === 1).length) / tokens).toFixed(1)} %`,
        at(scan, 0.99),
        scan.places.at(-1),
      ]),
    ),
  ].join('\n');
}
