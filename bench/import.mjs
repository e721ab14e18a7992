// Speed and memory of `matfleet model import` at full size, on a checkpoint of random weights in the published shape. What is measured and
// how: bench/README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readdir, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises';
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
  --golden               compute the golden answers too
  --slices FILE          a slice table instead of the shape's own
  --memory-limit BYTES   run in a control group of so much memory, page cache included (version 1, root)
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
      slices: { type: 'string' },
      'memory-limit': { type: 'string' },
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
    if (values.slices) command.push('--slices', values.slices);
    const limitBytes = values['memory-limit'] === undefined ? null : Number(values['memory-limit']);
    if (limitBytes !== null && !(Number.isInteger(limitBytes) && limitBytes > 0))
      throw new Error(`--memory-limit ${values['memory-limit']}: a number of bytes`);
    const measured = await (limitBytes === null ? measure(command) : withinLimit(limitBytes, (group) => measure(command, group)));
    const checkpointBytes = await weightBytes(checkpoint);
    const report = {
      date: new Date().toISOString().slice(0, 10),
      cpu: cpus()[0]?.model,
      shape: values.checkpoint ? 'a checkpoint of your own' : values.shape,
      precision: values.precision,
      block: values.precision === 'fp32' ? null : Number(values.block),
      cores: cpus().length,
      golden: values.golden,
      slices: measured.slices,
      limitBytes,
      checkpointBytes,
      packageBytes: measured.packageBytes,
      seconds: measured.seconds,
      weightsSeconds: measured.weightsSeconds,
      bytesPerSecond: checkpointBytes / measured.weightsSeconds,
      weightsPeakRssBytes: measured.weightsPeakRssBytes,
      peakRssBytes: measured.peakRssBytes,
      peakPrivateBytes: measured.peakPrivateBytes,
    };
    if (values.write) {
      const file = new URL(`results/import-${values.shape}${limitBytes === null ? '' : '-limited'}.md`, import.meta.url);
      const shown = args.filter((arg, i) => arg !== '--write' && arg !== '--cache' && args[i - 1] !== '--cache');
      await writeFile(
        file,
        `# Import of ${values.shape}${limitBytes === null ? '' : ` within ${limitBytes / 1e6} MB`}\n\n\`npm run bench -- import ${shown.join(' ')}\`\n\n${render(report)}\n`,
      );
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

/** Runs `work` with a new control group, which holds what a process that writes itself into it and its children take. */
async function withinLimit(bytes, work) {
  const group = `/sys/fs/cgroup/memory/matfleet-bench-${process.pid}`;
  await mkdir(group);
  try {
    await writeFile(join(group, 'memory.limit_in_bytes'), String(bytes));
    return await work(group);
  } finally {
    await rmdir(group);
  }
}

/** Runs the command line as a user would, and reads what it and its children hold until it ends. */
async function measure(command, group) {
  const started = performance.now();
  const enter = group ? ['-c', 'echo $$ > "$0"/cgroup.procs && exec "$@"', group, process.execPath] : [];
  const child = spawn(group ? 'sh' : process.execPath, [...enter, CLI, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  const peak = { rssBytes: 0, privateBytes: 0 };
  let weights;
  let stdout = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => {
    process.stderr.write(data);
    // The step's last line; golden answers, if they are made, come after it.
    if (/^weights: .* in /m.test(data)) weights = { seconds: (performance.now() - started) / 1000, peakRssBytes: peak.rssBytes };
  });
  const timer = setInterval(async () => {
    const all = await Promise.all((await treeOf(child.pid)).map(residentOf));
    for (const key of Object.keys(peak))
      peak[key] = Math.max(
        peak[key],
        all.reduce((sum, one) => sum + one[key], 0),
      );
  }, SAMPLE_MS);
  const [code] = await ended;
  clearInterval(timer);
  if (code !== 0) throw new Error(`matfleet ${command.join(' ')} ended with ${code}: ${stdout}`);
  const seconds = (performance.now() - started) / 1000;
  const { bytes, slices } = JSON.parse(stdout);
  return {
    packageBytes: bytes,
    slices: slices.length,
    seconds,
    weightsSeconds: weights?.seconds ?? seconds,
    weightsPeakRssBytes: weights?.peakRssBytes ?? peak.rssBytes,
    peakRssBytes: peak.rssBytes,
    peakPrivateBytes: peak.privateBytes,
  };
}

async function treeOf(pid) {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')).split(' ').filter(Boolean);
  return [pid, ...(await Promise.all(children.map(treeOf))).flat()];
}

async function residentOf(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const bytes = (key) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  return { rssBytes: bytes('VmRSS'), privateBytes: bytes('RssAnon') };
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
      ? [
          `| whole command with golden answers of ${report.slices} slices | ${report.seconds.toFixed(1)} s |`,
          `| its peak private memory | ${mb(report.peakPrivateBytes)} MB |`,
          `| its peak resident memory, mapped files included | ${mb(report.peakRssBytes)} MB |`,
        ]
      : []),
  ].join('\n');
}
