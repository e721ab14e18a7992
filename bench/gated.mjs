// The two ways to change width at run time: one session with gated bands, and one session per slice. See README.md.
import { execFile } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs, promisify } from 'node:util';
import { prepare, readManifest, runtime } from '@matfleet/inference';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { whole } from './support/options.mjs';
import { randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);
const WAYS = { gated: 'one session, gated bands', sessions: 'one session per slice' };

export const usage = `[options]
  --block N      quantisation block of E4B's int4 weights (128)
  --threads N    of one operator (all cores, at most 4)
  --prompt N     tokens before (64)
  --tokens N     of each width, alone and in turn (16)
  --repeats N    processes of each kind in alternation (2)
  --write        replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      block: { type: 'string', default: '128' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      prompt: { type: 'string', default: '64' },
      tokens: { type: 'string', default: '16' },
      repeats: { type: 'string', default: '2' },
      write: { type: 'boolean', default: false },
    },
  });
  const [block, threads, prompt, tokens, repeats] = ['block', 'threads', 'prompt', 'tokens', 'repeats'].map((name) =>
    whole(`--${name}`, values[name]),
  );
  const dir = await randomPackage({ shape: 'e4b', precision: 'int4', block });
  await prepare({ manifest: await readManifest(dir), storeDir: dir, sliceId: 'e4b', threads });
  const load = loadavg()[0];
  const script = new URL('support/gated-run.mjs', import.meta.url).pathname;
  const runs = { gated: [], sessions: [] };
  for (let repeat = 0; repeat < repeats; repeat++)
    for (const way of Object.keys(WAYS)) {
      console.error(`${WAYS[way]}, ${repeat + 1} of ${repeats}`);
      const terms = JSON.stringify({ dir, sliceId: 'e4b', way, threads, prompt, tokens });
      const { stdout } = await exec(process.execPath, [script, terms], { maxBuffer: 2 ** 26, timeout: 1_200_000 });
      runs[way].push(JSON.parse(stdout));
    }
  const command = ['npm run bench -- gated', ...args].join(' ');
  const text = [
    `# Gated bands beside one session per slice: e4b, int4 block ${block}`,
    '',
    `${today()} · \`${command}\` · ${machine()}, ONNX Runtime ${runtime.version}, ${threads} threads, load average before ${load.toFixed(1)}`,
    '',
    render(runs),
  ].join('\n');
  console.log(text);
  if (values.write) await writeTable('gated-e4b', text);
  return 0;
}

function render(runs) {
  const names = Object.keys(runs.gated[0].alone);
  const ways = Object.keys(WAYS);
  const ms = (way, kind, name) => median(runs[way].flatMap((one) => one[kind][name]));
  const megabytes = (way, when, what) => (median(runs[way].map((one) => one[when][what])) / 1e6).toFixed(0);
  const largest = Math.max(
    ...names.flatMap((name) => runs.gated[0].logits[name].map((value, i) => Math.abs(value - runs.sessions[0].logits[name][i]))),
  );
  return [
    table(
      [
        ['ms per token', 'left'],
        ...ways.flatMap((way) => [
          [WAYS[way], 'right'],
          ['another width at every token', 'right'],
        ]),
        ['gated / sessions, alone', 'right'],
        ['in turn', 'right'],
      ],
      names.map((name) => [
        name,
        ...ways.flatMap((way) => [ms(way, 'alone', name).toFixed(1), ms(way, 'switched', name).toFixed(1)]),
        ...['alone', 'switched'].map((kind) => `${(ms('gated', kind, name) / ms('sessions', kind, name)).toFixed(2)}x`),
      ]),
    ),
    '',
    table(
      [
        ['', 'left'],
        ['open ms', 'right'],
        ['private MB, opened', 'right'],
        ['private MB, all widths used', 'right'],
        ['mapped MB then', 'right'],
        ['PSS MB then', 'right'],
        ['peak MB', 'right'],
      ],
      ways.map((way) => [
        WAYS[way],
        median(runs[way].map(({ openMs }) => openMs)).toFixed(0),
        megabytes(way, 'afterOpen', 'privateBytes'),
        ...['privateBytes', 'fileBytes', 'pssBytes', 'peakRssBytes'].map((what) => megabytes(way, 'afterRuns', what)),
      ]),
    ),
    '',
    `Logits of both ways differ by ${largest.toExponential(1)} at most (1,000 of them after the prompt, each width).`,
  ].join('\n');
}
