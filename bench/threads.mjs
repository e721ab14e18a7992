// How many threads, and how they wait: speed of the engine at full size and what it leaves to a neighbour, on a free box and on a shared one.
// See README.md.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs, promisify } from 'node:util';
import { prepare, readManifest, runtime } from '@matfleet/inference';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { whole } from './support/options.mjs';
import { randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);
const RUN_TIMEOUT_MS = 120_000;
const NEIGHBOUR_TIMEOUT_MS = 10_000;

export const usage = `[options]
  --shape e2b|e4b   whose layers and widths (e2b)
  --block N         quantisation block of its int4 weights (128)
  --threads 1,2     of one operator (1 and every core, at most 4)
  --prompt N        tokens (64)
  --generate N      tokens after it (24)
  --repeats N       runs of each kind in alternation; medians are reported (3)
  --write           replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e2b' },
      block: { type: 'string', default: '128' },
      threads: { type: 'string', default: `1,${Math.min(4, availableParallelism())}` },
      prompt: { type: 'string', default: '64' },
      generate: { type: 'string', default: '24' },
      repeats: { type: 'string', default: '3' },
      write: { type: 'boolean', default: false },
    },
  });
  const [block, prompt, generate, repeats] = ['block', 'prompt', 'generate', 'repeats'].map((name) => whole(`--${name}`, values[name]));
  const dir = await randomPackage({ shape: values.shape, precision: 'int4', block });
  await prepare({ manifest: await readManifest(dir), storeDir: dir, sliceId: values.shape });

  const kinds = values.threads.split(',').flatMap((threads) =>
    // One thread has nobody to wait for.
    (threads === '1' ? ['never'] : ['never', 'pass', 'always']).flatMap((spinning) =>
      [false, true].map((shared) => ({ threads: Number(threads), spinning, shared, runs: [] })),
    ),
  );
  const load = loadavg()[0];
  for (let repeat = 0; repeat < repeats; repeat++)
    for (const kind of kinds) {
      const terms = { dir, sliceId: values.shape, prompts: [prompt], generate, contextTokens: prompt + generate, repeats: 1 };
      kind.runs.push(await beside(kind.shared, () => measure({ ...terms, threads: kind.threads, spinning: kind.spinning })));
      console.error(
        `${kind.threads} threads, spinning ${kind.spinning}, ${kind.shared ? 'shared' : 'free'}: ${speeds(kind).decode.toFixed(2)} tokens/s`,
      );
    }
  const command = ['npm run bench -- threads', ...args.filter((arg) => arg !== '--write'), '--write'].join(' ');
  const text = render({ command, values, kinds, load });
  console.log(text);
  if (values.write) await writeTable(`threads-${values.shape}-int4-${block}`, text);
  return 0;
}

async function measure(terms) {
  const script = new URL('support/engine-run.mjs', import.meta.url).pathname;
  const { stdout } = await exec(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 26, timeout: RUN_TIMEOUT_MS });
  return JSON.parse(stdout).runs[0];
}

/** Runs `work`, where `shared` beside a process that keeps the last core busy; adds the share of that core which the neighbour got. */
async function beside(shared, work) {
  if (!shared) return work();
  const core = String(availableParallelism() - 1);
  const script = new URL('support/busy.mjs', import.meta.url).pathname;
  const neighbour = spawn('taskset', ['-c', core, process.execPath, script], { stdio: ['pipe', 'pipe', 'inherit'] });
  let said = '';
  neighbour.stdout.setEncoding('utf8').on('data', (text) => (said += text));
  try {
    await once(neighbour.stdout, 'data', { signal: AbortSignal.timeout(NEIGHBOUR_TIMEOUT_MS) });
    const measured = await work();
    const ended = once(neighbour, 'close', { signal: AbortSignal.timeout(NEIGHBOUR_TIMEOUT_MS) });
    neighbour.kill('SIGTERM');
    await ended;
    return { ...measured, neighbourShare: JSON.parse(said.split('\n')[1]).share };
  } finally {
    neighbour.kill('SIGKILL');
  }
}

function speeds({ runs }) {
  return {
    prefill: median(runs.map(({ ttftMs, promptTokens }) => (promptTokens * 1000) / ttftMs)),
    decode: median(runs.map(({ interTokenMs }) => 1000 / median(interTokenMs))),
    coresUsed: median(runs.map(({ cpuMs, wallMs }) => cpuMs / wallMs)),
    neighbour: median(runs.map(({ neighbourShare }) => neighbourShare ?? NaN)),
  };
}

function render({ command, values, kinds, load }) {
  return [
    `# Threads and spinning: ${values.shape}, int4 block ${values.block}`,
    '',
    `${today()} · \`${command}\` · ${machine()}, ONNX Runtime ${runtime.version}, load average before ${load.toFixed(1)}`,
    '',
    `A prompt of ${values.prompt} tokens and ${values.generate} tokens of answer, medians of ${values.repeats} runs of each kind in alternation. The neighbour is one process that never waits, bound to the last core.`,
    '',
    table(
      [
        ['box', 'left'],
        ['threads', 'right'],
        ['spinning', 'left'],
        ['prefill tokens/s', 'right'],
        ['decode tokens/s', 'right'],
        ['cores used', 'right'],
        ['neighbour got of its core', 'right'],
      ],
      [...kinds]
        .sort((a, b) => a.shared - b.shared)
        .map((kind) => {
          const { prefill, decode, coresUsed, neighbour } = speeds(kind);
          return [
            kind.shared ? 'shared' : 'free',
            kind.threads,
            kind.threads === 1 ? '–' : kind.spinning,
            prefill.toFixed(1),
            decode.toFixed(2),
            coresUsed.toFixed(2),
            kind.shared ? `${(100 * neighbour).toFixed(0)} %` : '–',
          ];
        }),
    ),
  ].join('\n');
}
