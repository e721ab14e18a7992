// How fast a package reaches a control plane's disk, and in how much memory on both ends. What is measured and how: bench/README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ControlPlaneProcess } from '@matfleet/harness';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { whole } from './support/options.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';

const CLI = new URL('../apps/cli/bin/matfleet.mjs', import.meta.url).pathname;
const SAMPLE_MS = 50;
const WRITE_BYTES = 1 << 20;

export const usage = `[options]
  --shape e2b|e4b   whose layers and widths (e4b)
  --block N         quantisation block of its int4 weights (128)
  --write           replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: { shape: { type: 'string', default: 'e4b' }, block: { type: 'string', default: '128' }, write: { type: 'boolean', default: false } },
  });
  const packageDir = await randomPackage({ shape: values.shape, precision: 'int4', block: whole('--block', values.block) });
  const dir = join(CACHE, `publish-${process.pid}`);
  await mkdir(dir, { recursive: true });
  const load = loadavg()[0];
  let controlPlane;
  try {
    controlPlane = await ControlPlaneProcess.start({ dir: join(dir, 'control-plane'), env: { MATFLEET_LOG_LEVEL: 'warn' } });
    const restBytes = await peakRss(controlPlane.process.pid);
    const first = await publish(packageDir, controlPlane);
    const again = await publish(packageDir, controlPlane);
    const plain = await copied(packageDir, join(dir, 'copy'));
    const { bytes } = first;
    const text = [
      `# Publishing a package of ${(bytes / 1e9).toFixed(2)} GB to local disk`,
      '',
      `${today()} · \`${['npm run bench -- publish', ...args.filter((arg) => arg !== '--write')].join(' ')}\` · ${machine()}, load average before ${load.toFixed(1)}`,
      '',
      table(
        [
          ['', 'left'],
          ['value', 'right'],
        ],
        [
          ['seconds', first.seconds.toFixed(1)],
          ['MB/s', rate(bytes, first.seconds)],
          ['MB/s of a plain copy with fsync, nothing hashed', rate(bytes, plain)],
          ['peak RSS of `matfleet model publish`, MB', megabytes(first.rssBytes)],
          ['peak RSS of the control plane, MB', megabytes(await peakRss(controlPlane.process.pid))],
          ['of that before the upload, MB', megabytes(restBytes)],
          ['seconds to publish it again, nothing to send', again.seconds.toFixed(1)],
        ],
      ),
    ].join('\n');
    console.log(text);
    if (values.write) await writeTable(`publish-${values.shape}`, text);
    return 0;
  } finally {
    await controlPlane?.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function publish(packageDir, { httpUrl, apiKeyFile }) {
  const startMs = performance.now();
  const args = [CLI, '--json', 'model', 'publish', packageDir, '--server', httpUrl, '--api-key-file', apiKeyFile];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  let rssBytes = 0;
  const timer = setInterval(() => void peakRss(child.pid).then((now) => (rssBytes = Math.max(rssBytes, now))), SAMPLE_MS);
  let json = '';
  child.stdout.on('data', (part) => (json += part));
  const [code] = await once(child, 'close');
  clearInterval(timer);
  if (code !== 0) throw new Error(`matfleet model publish ended with ${code}: ${json}`);
  return { seconds: (performance.now() - startMs) / 1_000, rssBytes, bytes: JSON.parse(json).uploadedBytes };
}

/** The most that the process has held so far; 0 once it is gone. */
async function peakRss(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}

/** Seconds that copying the same files takes, each made durable. */
async function copied(packageDir, to) {
  await mkdir(to);
  const startMs = performance.now();
  for (const name of await readdir(join(packageDir, 'chunks'))) {
    const [source, target] = [await open(join(packageDir, 'chunks', name)), await open(join(to, name), 'w')];
    for await (const data of source.createReadStream({ highWaterMark: WRITE_BYTES })) await target.writeFile(data);
    await target.sync();
    await target.close();
  }
  return (performance.now() - startMs) / 1_000;
}

const rate = (bytes, seconds) => (bytes / 1e6 / seconds).toFixed(0);
const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
