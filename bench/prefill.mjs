// How many tokens of a prompt one pass should take: speed, the longest time without a turn, and memory, at full size. See README.md.
import { execFile } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs, promisify } from 'node:util';
import { prepare, readManifest, runtime } from '@matfleet/inference';
import { machine, megabytes, table, today, writeTable } from './support/markdown.mjs';
import { whole } from './support/options.mjs';
import { randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);
const RUN_TIMEOUT_MS = 300_000;

export const usage = `[options]
  --shape e2b|e4b     whose layers and widths (e2b)
  --block N           quantisation block of its int4 weights (128)
  --chunk 32,64,…     tokens of a pass (32,64,128,256,512)
  --prompt N          tokens (512)
  --threads N         of one operator (all cores, at most 4)
  --repeats N         runs of each size in alternation; medians are reported (3)
  --write             replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e2b' },
      block: { type: 'string', default: '128' },
      chunk: { type: 'string', default: '32,64,128,256,512' },
      prompt: { type: 'string', default: '512' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      repeats: { type: 'string', default: '3' },
      write: { type: 'boolean', default: false },
    },
  });
  const [block, prompt, threads, repeats] = ['block', 'prompt', 'threads', 'repeats'].map((name) => whole(`--${name}`, values[name]));
  const dir = await randomPackage({ shape: values.shape, precision: 'int4', block });
  await prepare({ manifest: await readManifest(dir), storeDir: dir, sliceId: values.shape });
  const kinds = values.chunk.split(',').map((text) => ({ chunkTokens: whole('--chunk', text), runs: [] }));
  const load = loadavg()[0];
  for (let repeat = 0; repeat < repeats; repeat++)
    for (const { chunkTokens, runs } of kinds) {
      runs.push(await measure({ dir, sliceId: values.shape, chunkTokens, prompt, contextTokens: prompt, threads }));
      console.error(`${chunkTokens}: ${((prompt * 1000) / runs.at(-1).ms).toFixed(1)} tokens/s`);
    }
  const command = ['npm run bench -- prefill', ...args.filter((arg) => arg !== '--write'), '--write'].join(' ');
  const text = [
    `# Tokens of a prompt in one pass: ${values.shape}, int4 block ${block}`,
    '',
    `${today()} · \`${command}\` · ${machine()}, ${threads} threads, ONNX Runtime ${runtime.version}, load average before ${load.toFixed(1)}`,
    '',
    `A prompt of ${prompt} tokens, medians of ${repeats} runs of each size in alternation.`,
    '',
    table(
      [
        ['tokens in a pass', 'right'],
        ['prefill tokens/s', 'right'],
        ['longest pass ms', 'right'],
        ['transient MB', 'right'],
      ],
      kinds.map(({ chunkTokens, runs }) => [
        chunkTokens,
        median(runs.map(({ ms }) => (prompt * 1000) / ms)).toFixed(1),
        median(runs.map(({ longestPassMs }) => longestPassMs)).toFixed(0),
        megabytes(median(runs.map(({ transientBytes }) => transientBytes))),
      ]),
    ),
  ].join('\n');
  console.log(text);
  if (values.write) await writeTable(`prefill-${values.shape}-int4-${block}`, text);
  return 0;
}

async function measure(terms) {
  const script = new URL('support/prefill-run.mjs', import.meta.url).pathname;
  const { stdout } = await exec(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 20, timeout: RUN_TIMEOUT_MS });
  return JSON.parse(stdout);
}
