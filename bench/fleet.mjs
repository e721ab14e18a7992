// How many devices one control plane carries on this machine, with the simulator and the database beside it. See README.md.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bin, ControlPlaneProcess, makeRunDir, ManagedProcess, nanoPackage, publish, sleep, waitFor } from '@matfleet/harness';
import { memoryOf } from './support/memory.mjs';

export const usage = `[options]
  --devices N  virtual devices (default 1000)
  --ramp N     started in a second (default 50)
  --steady S   seconds at rest that are measured (default 45)
  --json       print the figures as JSON
  --write      add a row to the committed table`;

const HEARTBEAT_MS = 15_000;
const TICKS_PER_SECOND = 100;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      devices: { type: 'string', default: '1000' },
      ramp: { type: 'string', default: '50' },
      steady: { type: 'string', default: '45' },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const devices = Number(values.devices);
  const runDir = await makeRunDir('bench');
  const stops = [];
  try {
    const [model, other] = [await nanoPackage('int8'), await nanoPackage('int8', 128)];
    const controlPlane = await ControlPlaneProcess.start({
      dir: join(runDir.dir, 'control-plane'),
      env: { MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS), MATFLEET_LEASE_MS: String(3 * HEARTBEAT_MS), MATFLEET_LOG_LEVEL: 'warn' },
    });
    stops.push(() => controlPlane.stop());
    await publish(model.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    await publish(other.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const figures = await measure(controlPlane, { devices, ramp: values.ramp, steadyS: Number(values.steady), dir: runDir.dir, model });
    console.log(values.json ? JSON.stringify(figures, null, 2) : `${HEAD}\n${row(figures)}`);
    if (values.write) await addRow(figures);
    return 0;
  } finally {
    for (const stop of stops.reverse()) await stop();
    await runDir.remove();
  }
}

async function measure(controlPlane, { devices, ramp, steadyS, dir, model }) {
  const { pid } = controlPlane.process;
  const emptyRss = await rssBytes(pid);
  const { token } = await controlPlane.api.createJoinToken(devices);
  await writeFile(join(dir, 'token'), token, { mode: 0o600 });
  const result = join(dir, 'result.json');
  const startedAt = performance.now();
  const simulator = ManagedProcess.start(
    'simulator',
    bin.simulator,
    [
      ...['--server', controlPlane.deviceUrl, '--join-token-file', join(dir, 'token'), '--devices', String(devices), '--ramp', ramp],
      ...['--ready-file', join(dir, 'sim-ready.json'), '--json', result],
    ],
    { logFile: join(dir, 'simulator.log') },
  );
  try {
    await simulator.ready(join(dir, 'sim-ready.json'), 120_000 + (2_000 * devices) / Number(ramp));
    const startS = (performance.now() - startedAt) / 1_000;
    const startCpuS = await cpuSeconds(pid);
    await converged(controlPlane, devices);
    const convergedS = (performance.now() - startedAt) / 1_000;

    const before = { cpuS: await cpuSeconds(pid), atMs: performance.now() };
    await sleep(steadyS * 1_000);
    const coresUsed = (1_000 * ((await cpuSeconds(pid)) - before.cpuS)) / (performance.now() - before.atMs);
    const rss = await rssBytes(pid);

    const updateAt = performance.now();
    // Everybody runs the version published last: back to the first.
    const update = await controlPlane.api.createUpdate(model.versionId);
    await waitFor('the update to end', async () => (await controlPlane.api.update(update.id)).state !== 'running', {
      timeoutMs: 170_000,
      everyMs: 500,
    });
    const updateS = (performance.now() - updateAt) / 1_000;
    await simulator.kill('SIGINT');
    const seen = JSON.parse(await readFile(result, 'utf8'));
    return {
      devices,
      connected: seen.connected,
      startS: round(startS),
      connectsPerSecond: round(devices / startS),
      cpuPerConnectMs: round((1_000 * startCpuS) / devices),
      convergedS: round(convergedS),
      coresUsed: round(coresUsed, 3),
      controlPlaneRssBytes: rss,
      bytesPerAgent: Math.round((rss - emptyRss) / devices),
      ackP50Ms: seen.ackP50Ms,
      ackP99Ms: seen.ackP99Ms,
      updateS: round(updateS),
      reports: seen.reports,
      simulatorBytesPerDevice: Math.round((seen.rssBytes - seen.emptyRssBytes) / devices),
      errors: seen.errors,
    };
  } finally {
    if (!simulator.exited) await simulator.kill();
  }
}

async function converged(controlPlane, devices) {
  let count = 0;
  await waitFor(
    'every device to run what it should',
    async () => {
      const list = await controlPlane.api.devices();
      count = list.filter(({ desired, observed }) => desired && Number(observed?.generation) === Number(desired.generation)).length;
      return count === devices;
    },
    { timeoutMs: 120_000, everyMs: 1_000, lastSeen: () => `${count} of ${devices}` },
  );
}

/** User and system time of the process, children not counted. */
async function cpuSeconds(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

const rssBytes = async (pid) => (await memoryOf(pid)).rssBytes;

const round = (value, digits = 1) => Number(value.toFixed(digits));

const HEAD = `| devices | connects/s | ms of processor per connect | all converged after s | cores at rest | KB of control plane per device | beat answered in ms, median | p99 | one update for all, s | reports in all | KB of simulator per device |
| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |`;

const row = (f) =>
  `| ${f.devices} | ${f.connectsPerSecond} | ${f.cpuPerConnectMs} | ${f.convergedS} | ${f.coresUsed} | ${Math.round(f.bytesPerAgent / 1_000)} | ${f.ackP50Ms} | ${f.ackP99Ms} | ${f.updateS} | ${f.reports} | ${Math.round(f.simulatorBytesPerDevice / 1_000)} |`;

/** One row for each number of devices; the newest run of a number replaces the one before. */
async function addRow(figures) {
  const path = join(import.meta.dirname, 'results/fleet.md');
  const old = await readFile(path, 'utf8').catch(() => '');
  const rows = old.split('\n').filter((line) => /^\| +\d/.test(line) && Number(line.split('|')[1]) !== figures.devices);
  const sorted = [...rows, row(figures)].sort((a, b) => Number(a.split('|')[1]) - Number(b.split('|')[1]));
  const text = [
    '# Fleet: one control plane, its database and the simulator on one machine',
    '',
    `${new Date().toISOString().slice(0, 10)} · \`npm run bench -- fleet --devices N --write\` · ${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, Node ${process.versions.node} · the machine did other work meanwhile`,
    '',
    HEAD,
    ...sorted,
    '',
  ].join('\n');
  await mkdir(join(import.meta.dirname, 'results'), { recursive: true });
  await writeFile(path, text);
}
