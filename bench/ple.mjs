// Per-layer embeddings from disk: page cache warm and cold, a prompt in one batch and row by row. What is measured and how: bench/README.md.
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { parseArgs, promisify } from 'node:util';
import { whole } from './support/options.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';

export const usage = `[options]
  --shape e2b|e4b        whose layers and tables (e2b)
  --block N              quantisation block, in int4 (128)
  --tokens N             tokens decoded one by one (20000)
  --prompt N             tokens of a prompt (512)
  --repeats N            prompts of each kind; medians are reported (5)
  --threads N            of the engine's operators (all cores, at most 4)
  --cache DIR            where random packages are kept (~/.cache/matfleet/bench)
  --write                replace the committed table of this shape
  --json                 one JSON document on stdout`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e2b' },
      block: { type: 'string', default: '128' },
      tokens: { type: 'string', default: '20000' },
      prompt: { type: 'string', default: '512' },
      repeats: { type: 'string', default: '5' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      cache: { type: 'string', default: CACHE },
      write: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const number = (name) => whole(`--${name}`, values[name]);
  const dir = await randomPackage({ shape: values.shape, precision: 'int4', block: number('block'), cache: values.cache });
  const terms = {
    dir,
    sliceId: values.shape,
    threads: number('threads'),
    repeats: number('repeats'),
    tokens: number('tokens'),
    promptTokens: number('prompt'),
  };
  const script = new URL('support/ple-run.mjs', import.meta.url).pathname;
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 24, timeout: 900_000 });
  const report = { date: new Date().toISOString().slice(0, 10), cpu: cpus()[0]?.model, ...terms, ...JSON.parse(stdout) };
  if (values.write) {
    const command = args.filter((arg) => arg !== '--write').join(' ');
    await mkdir(new URL('results/', import.meta.url), { recursive: true });
    await writeFile(
      new URL(`results/ple-${values.shape}.md`, import.meta.url),
      `# Per-layer embeddings from disk: ${values.shape}\n\n\`npm run bench -- ple${command ? ` ${command}` : ''}\`\n\n${render(report, values)}\n`,
    );
  }
  console.log(values.json ? JSON.stringify(report, null, 2) : render(report, values));
  return 0;
}

function render(report, { shape, block }) {
  const mb = (bytes) => (bytes / 1e6).toFixed(1);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    `${shape}, int4 block ${block}, ${report.cpu}, Node ${process.versions.node}, ${report.date}. Table of ${report.rows} rows of ${report.rowBytes} bytes, ${mb(report.fileBytes)} MB; hot rows: ${report.cachedRows}, ${mb(report.cachedRows * report.rowBytes)} MB.`,
    '',
    'One token at a time, as in decoding:',
    '',
    line(['ids', 'page cache', 'tokens', 'hit rate', 'µs per token', 'median µs', 'p99 µs', 'rows/s']),
    line(['---', '---', '---:', '---:', '---:', '---:', '---:', '---:']),
    ...report.decoding.map((row) =>
      line([
        row.ids,
        row.disk,
        row.count,
        `${(100 * row.hitRate).toFixed(1)} %`,
        row.meanUs.toFixed(1),
        row.medianUs.toFixed(1),
        row.p99Us.toFixed(0),
        row.rowsPerSecond.toFixed(0),
      ]),
    ),
    '',
    `A prompt of ${report.promptTokens} tokens, no rows kept from before:`,
    '',
    line(['ids', 'page cache', 'one batch ms', 'row by row ms']),
    line(['---', '---', '---:', '---:']),
    ...report.prompts
      .filter(({ batched }) => batched)
      .map((row) => {
        const other = report.prompts.find(({ ids, disk, batched }) => !batched && ids === row.ids && disk === row.disk);
        return line([row.ids, row.disk, row.ms.toFixed(1), other.ms.toFixed(1)]);
      }),
    '',
    `- first token of the engine after a 32-token prompt, ${report.threads} threads: ${report.firstTokenMs.warm.toFixed(0)} ms warm, ${report.firstTokenMs.cold.toFixed(0)} ms after the planes were dropped from the page cache; of the last such prompt its ${report.lastColdRead.rows} rows took ${report.lastColdRead.ms.toFixed(1)} ms`,
    `- the planes had ${mb(report.warmBytes)} MB in the page cache when warm and at most ${mb(report.mostLeftBytes)} MB after each of ${report.drops} drops (fincore)`,
  ].join('\n');
}
