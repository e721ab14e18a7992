// Memory of an engine over many short answers. What is measured and how: bench/README.md.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { importCheckpoint, runtime } from '@matfleet/inference';

const exec = promisify(execFile);
const NANO = resolve(import.meta.dirname, '../models/nano');

export const usage = `[options]
  --requests N   answers (1000)
  --every N      a measurement after every so many; growth is counted from the first one (100)
  --slice ID     of nano (s-128)
  --draft N      tokens drafted ahead at most (4)
  --bound MB     exit 1 when private memory grew by more (16)
  --write        replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      requests: { type: 'string', default: '1000' },
      every: { type: 'string', default: '100' },
      slice: { type: 'string', default: 's-128' },
      draft: { type: 'string', default: '4' },
      bound: { type: 'string', default: '16' },
      write: { type: 'boolean', default: false },
    },
  });
  const [requests, every, draftTokens, bound] = [values.requests, values.every, values.draft, values.bound].map(Number);
  const { slices } = JSON.parse(await readFile(join(NANO, 'slices.json'), 'utf8'));
  const texts = (await readFile(join(NANO, 'eval/heldout.jsonl'), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).text);
  const work = await mkdtemp(join(tmpdir(), 'matfleet-bench-'));
  try {
    const dir = join(work, 'package');
    const chosen = slices.map(({ id, name, ffn, skip }) => ({ id, name, ffn, skip }));
    await importCheckpoint({ source: NANO, out: dir, precision: 'int8', slices: chosen, golden: false });
    const terms = { dir, sliceId: values.slice, texts: texts.slice(0, 600), requests, every, contextTokens: 256, draftTokens };
    const script = join(import.meta.dirname, 'support/requests-run.mjs');
    const { stdout } = await exec(process.execPath, ['--expose-gc', script, JSON.stringify(terms)], { maxBuffer: 2 ** 26, timeout: 1_800_000 });
    const report = JSON.parse(stdout);
    const grown = report.points.at(-1).privateBytes - report.points[0].privateBytes;
    const text = render({ ...report, grown, bound, slice: values.slice, draftTokens });
    console.log(text);
    if (values.write) {
      const command = `npm run bench -- requests${args.map((arg) => ` ${arg}`).join('')}`;
      await writeFile(new URL('results/requests.md', import.meta.url), `# Many short answers: what the process holds\n\n\`${command}\`\n\n${text}\n`);
    }
    return grown > bound * 1e6 ? 1 : 0;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function render({ points, tokens, cached, seconds, stats, grown, bound, slice, draftTokens }) {
  const mb = (bytes) => (bytes / 1e6).toFixed(1);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const header = ['requests', 'private MB', 'JavaScript heap MB', 'resident MB', 'peak MB'];
  return [
    `nano, slice ${slice}, int8, drafts of ${draftTokens}, ${cpus()[0]?.model}, ONNX Runtime ${runtime.version}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`,
    '',
    line(header),
    line(header.map(() => '--:')),
    ...points.map((point) => line([point.requests, ...[point.privateBytes, point.heapBytes, point.rssBytes, point.peakRssBytes].map(mb)])),
    '',
    `- private memory grew by ${mb(grown)} MB from the first measurement to the last; the bound is ${bound} MB`,
    `- ${tokens} tokens in ${seconds.toFixed(0)} s; ${cached} prompt tokens were there already; ${stats.pleRowsCached} rows of per-layer embeddings held, ${mb(stats.kvBytes)} MB of K/V`,
  ].join('\n');
}
