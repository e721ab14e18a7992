// Speed and memory of `matfleet model import` at full size, on a checkpoint of random weights in the published shape. What is measured and
// how: bench/README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { cpus, homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { synthCheckpoint } from '@matfleet/inference';

const CLI = new URL('../apps/cli/bin/matfleet.mjs', import.meta.url).pathname;
const SAMPLE_MS = 50;

export const usage = `[options]
  --shape e2b|e4b        whose layers and widths (e4b)
  --checkpoint DIR       a checkpoint of your own instead
  --precision KIND       int4, int8 or fp32 (int4)
  --block N              quantisation block (64)
  --threads N            that encode weights (the command's default)
  --golden               compute the golden answers too, which need an engine's memory
  --cache DIR            where the random checkpoint is kept, and the package while it is made (~/.cache/matfleet/bench); 18 GB for e4b
  --write                replace the committed table of this shape
  --json                 one JSON document on stdout`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      shape: { type: 'string', default: 'e4b' },
      checkpoint: { type: 'string' },
      precision: { type: 'string', default: 'int4' },
      block: { type: 'string', default: '64' },
      threads: { type: 'string' },
      golden: { type: 'boolean', default: false },
      cache: { type: 'string', default: join(homedir(), '.cache/matfleet/bench') },
      write: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  if (!['e2b', 'e4b'].includes(values.shape)) throw new Error(`--shape ${values.shape}: e2b or e4b`);
  const checkpoint = values.checkpoint ?? (await randomCheckpoint(values));
  const out = join(values.cache, `import-${process.pid}`);
  await mkdir(values.cache, { recursive: true });
  try {
    const command = ['model', 'import', checkpoint, '--out', out, '--precision', values.precision, '--name', 'bench', '--json'];
    if (values.precision !== 'fp32') command.push('--block', values.block);
    if (values.threads) command.push('--threads', values.threads);
    if (!values.golden) command.push('--no-golden');
    const measured = await measure(command);
    const checkpointBytes = await weightBytes(checkpoint);
    const report = {
      date: new Date().toISOString().slice(0, 10),
      cpu: cpus()[0]?.model,
      shape: values.checkpoint ? 'a checkpoint of your own' : values.shape,
      precision: values.precision,
      block: values.precision === 'fp32' ? null : Number(values.block),
      cores: cpus().length,
      golden: values.golden,
      checkpointBytes,
      packageBytes: measured.packageBytes,
      seconds: measured.seconds,
      weightsSeconds: measured.weightsSeconds,
      bytesPerSecond: checkpointBytes / measured.weightsSeconds,
      weightsPeakRssBytes: measured.weightsPeakRssBytes,
      peakRssBytes: measured.peakRssBytes,
    };
    if (values.write) {
      const file = new URL(`results/import-${values.shape}.md`, import.meta.url);
      const shown = args.filter((arg, i) => arg !== '--write' && arg !== '--cache' && args[i - 1] !== '--cache');
      await writeFile(file, `# Import of ${values.shape}\n\n\`npm run bench -- import ${shown.join(' ')}\`\n\n${render(report)}\n`);
    }
    console.log(values.json ? JSON.stringify(report, null, 2) : render(report));
    return 0;
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

async function randomCheckpoint({ shape, cache }) {
  const dir = join(cache, `${shape}-checkpoint`);
  const there = await access(join(dir, 'config.json')).then(
    () => true,
    () => false,
  );
  if (there) return dir;
  console.error(`making a random checkpoint in ${dir}, once`);
  await mkdir(cache, { recursive: true });
  await synthCheckpoint({ shape, out: dir });
  return dir;
}

/** Runs the command line as a user would; the peak is the kernel's own, read until the process ends. */
async function measure(command) {
  const started = performance.now();
  const child = spawn(process.execPath, [CLI, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let peakRssBytes = 0;
  let weights;
  let stdout = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => {
    process.stderr.write(data);
    // The step's last line; an engine, if there is one, comes after it.
    if (/^weights: .* in /m.test(data)) weights = { seconds: (performance.now() - started) / 1000, peakRssBytes };
  });
  const timer = setInterval(async () => {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '');
    peakRssBytes = Math.max(peakRssBytes, Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024);
  }, SAMPLE_MS);
  const [code] = await ended;
  clearInterval(timer);
  if (code !== 0) throw new Error(`matfleet ${command.join(' ')} ended with ${code}: ${stdout}`);
  const seconds = (performance.now() - started) / 1000;
  return {
    packageBytes: JSON.parse(stdout).bytes,
    seconds,
    weightsSeconds: weights?.seconds ?? seconds,
    weightsPeakRssBytes: weights?.peakRssBytes ?? peakRssBytes,
    peakRssBytes,
  };
}

async function weightBytes(dir) {
  const files = (await readdir(dir)).filter((name) => name.endsWith('.safetensors'));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(dir, name))).size));
  return sizes.reduce((a, b) => a + b, 0);
}

function render(report) {
  const mb = (bytes) => (bytes / 1e6).toFixed(0);
  return [
    `${report.shape}, ${report.precision}${report.block ? ` block ${report.block}` : ''}, ${report.cores} cores of ${report.cpu}, Node ${process.versions.node}, ${report.date}`,
    '',
    '| what | |',
    '| --- | --: |',
    `| checkpoint | ${mb(report.checkpointBytes)} MB |`,
    `| package | ${mb(report.packageBytes)} MB |`,
    `| weights read, encoded, hashed, on disk | ${report.weightsSeconds.toFixed(1)} s |`,
    `| speed, of checkpoint bytes | ${mb(report.bytesPerSecond)} MB/s |`,
    `| peak resident memory until then | ${mb(report.weightsPeakRssBytes)} MB |`,
    ...(report.golden
      ? [`| whole command with golden answers | ${report.seconds.toFixed(1)} s |`, `| its peak resident memory | ${mb(report.peakRssBytes)} MB |`]
      : []),
  ].join('\n');
}
