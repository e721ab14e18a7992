// How many devices one control plane carries on this machine, with the simulator and the database beside it. See README.md.
import { readFile, writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bin, ControlPlaneProcess, makeRunDir, ManagedProcess, nanoPackage, publish, sleep, waitFor } from '@matfleet/harness';
import { loadedFleet } from './support/loaded-fleet.mjs';
import { memoryOf } from './support/memory.mjs';
import { whole } from './support/options.mjs';
import { addFleetRow, fleetRow } from './support/fleet-table.mjs';

export const usage = `[options]
  --devices N  virtual devices (default 1000)
  --ramp N     started in a second (default 100)
  --steady S   seconds at rest that are measured (default 45)
  --no-kill    leave out the kill -9 of the control plane
  --profile D  write CPU profiles of the control plane, one for each phase, into this directory
  --json       print the figures as JSON
  --write      add a row to the committed table`;

const HEARTBEAT_MS = 15_000;
const REPORTS_PER_MINUTE = 1;
const PROFILER = join(import.meta.dirname, 'support/profiler.mjs');

export async function run(args) {
  const { values } = parseArgs({
    args,
    allowNegative: true,
    options: {
      devices: { type: 'string', default: '1000' },
      ramp: { type: 'string', default: '100' },
      steady: { type: 'string', default: '45' },
      kill: { type: 'boolean', default: true },
      profile: { type: 'string' },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const options = {
    devices: whole('--devices', values.devices),
    ramp: whole('--ramp', values.ramp),
    steadyS: whole('--steady', values.steady),
    kill: values.kill,
    profile: values.profile,
  };
  const runDir = await makeRunDir('bench');
  const stops = [];
  try {
    const [model, other] = [await nanoPackage('int8'), await nanoPackage('int8', 128)];
    const controlPlane = await ControlPlaneProcess.start({
      dir: join(runDir.dir, 'control-plane'),
      env: {
        MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS),
        MATFLEET_LEASE_MS: String(3 * HEARTBEAT_MS),
        MATFLEET_LOG_LEVEL: 'warn',
        ...(values.profile && { NODE_OPTIONS: `--import ${PROFILER}`, MATFLEET_BENCH_PROFILES: values.profile }),
      },
    });
    stops.push(() => controlPlane.stop());
    await publish(model.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    await publish(other.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const figures = await measure(controlPlane, { ...options, dir: runDir.dir, model });
    console.log(values.json ? JSON.stringify(figures, null, 2) : fleetRow(figures));
    if (values.write) await addFleetRow(figures);
    return 0;
  } finally {
    for (const stop of stops.reverse()) await stop();
    await runDir.remove();
  }
}

async function measure(controlPlane, { devices, ramp, steadyS, kill, profile, dir, model }) {
  const emptyRss = await rssBytes(controlPlane);
  const { token } = await controlPlane.api.createJoinToken(devices);
  await writeFile(join(dir, 'token'), token, { mode: 0o600 });
  const files = { ready: join(dir, 'sim-ready.json'), status: join(dir, 'sim-status.json'), result: join(dir, 'result.json') };
  const seen = () => readFile(files.status, 'utf8').then(JSON.parse, () => undefined);
  const note = (text) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
  const profiled = async (work) => {
    if (profile) process.kill(controlPlane.process.pid, 'SIGUSR2');
    const result = await work();
    if (profile) process.kill(controlPlane.process.pid, 'SIGUSR2');
    return result;
  };

  const startedAt = performance.now();
  const simulator = ManagedProcess.start(
    'simulator',
    bin.simulator,
    [
      ...['--server', controlPlane.deviceUrl, '--join-token-file', join(dir, 'token'), '--devices', String(devices), '--ramp', String(ramp)],
      ...['--reports', String(REPORTS_PER_MINUTE), '--ready-file', files.ready, '--status', files.status, '--json', files.result, '--quiet'],
    ],
    { logFile: join(dir, 'simulator.log') },
  );
  const simulated = (what, done, timeoutMs) =>
    waitFor(
      what,
      async () => {
        if (simulator.exited) throw new Error(`the simulator ended:\n${simulator.logTail()}`);
        const counts = await seen();
        return counts && done(counts) && counts;
      },
      { timeoutMs, everyMs: 250 },
    );
  try {
    const rampS = devices / ramp;
    const start = await profiled(async () => {
      const before = await cpuSeconds(controlPlane);
      await simulator.ready(files.ready, 120_000 + 3_000 * rampS);
      await simulated('all to connect', ({ connected }) => connected === devices, 120_000);
      const wallS = (performance.now() - startedAt) / 1_000;
      return { wallS, cpuS: (await cpuSeconds(controlPlane)) - before };
    });
    note(`${devices} connected after ${round(start.wallS)} s`);
    await simulated('every device to run what it should', ({ converged }) => converged === devices, 120_000);
    const convergedS = (performance.now() - startedAt) / 1_000;

    // Past the first minute nothing of the start is left: its rows, its garbage.
    await sleep(Math.min(20_000, 1_000 * steadyS));
    const rest = await profiled(async () => {
      process.kill(simulator.pid, 'SIGUSR2');
      const before = { cpuS: await cpuSeconds(controlPlane), atMs: performance.now() };
      await sleep(steadyS * 1_000);
      const coresUsed = (1_000 * ((await cpuSeconds(controlPlane)) - before.cpuS)) / (performance.now() - before.atMs);
      await sleep(1_500);
      return { coresUsed, rss: await rssBytes(controlPlane), load: loadavg()[0], ...(await seen()) };
    });
    note(`at rest: ${round(rest.coresUsed, 3)} cores, p99 ${rest.ackP99Ms} ms, ${Math.round((rest.rss - emptyRss) / devices / 1_000)} KB a device`);

    const loaded = await loadedFleet(controlPlane, devices);
    note(`list p95 ${loaded.listP95Ms} ms, command p99 ${loaded.commandP99Ms} ms`);
    const updateS = await profiled(() => updateAll(controlPlane, model.versionId, devices));
    note(`one update for all: ${round(updateS)} s`);
    const back = kill ? await killed(controlPlane, seen, devices) : {};
    if (kill) note(`after kill -9: ${back.back95S} s, ${back.backAllS} s`);

    await simulator.kill('SIGINT');
    const end = JSON.parse(await readFile(files.result, 'utf8'));
    return {
      devices,
      connected: end.connected,
      startS: round(start.wallS),
      connectsPerSecond: round(devices / start.wallS),
      cpuPerConnectMs: round((1_000 * start.cpuS) / devices),
      convergedS: round(convergedS),
      coresUsed: round(rest.coresUsed, 3),
      controlPlaneRssBytes: rest.rss,
      bytesPerAgent: Math.round((rest.rss - emptyRss) / devices),
      ackP50Ms: rest.ackP50Ms,
      ackP99Ms: rest.ackP99Ms,
      acksTimed: rest.acksTimed,
      loadAverage: round(rest.load),
      ...loaded,
      updateS: round(updateS),
      ...back,
      reports: end.reports,
      simulatorBytesPerDevice: Math.round((rest.rssBytes - rest.emptyRssBytes) / devices),
      simulatorProcesses: end.processes,
      errors: end.errors,
      errorReasons: end.errorReasons,
    };
  } catch (error) {
    throw new Error(`${error.message}\nthe control plane's log ends:\n${controlPlane.process.logTail()}\nthe simulator's:\n${simulator.logTail()}`, {
      cause: error,
    });
  } finally {
    if (!simulator.exited) await simulator.kill();
  }
}

/** Seconds until the control plane has noted every device as succeeded. Everybody runs the version published last: back to the first. */
async function updateAll(controlPlane, versionId, devices) {
  const startedAt = performance.now();
  await controlPlane.api.createUpdate(versionId);
  await waitFor('the update to end', async () => (await succeeded(controlPlane)) >= devices, { timeoutMs: 170_000, everyMs: 250 });
  return (performance.now() - startedAt) / 1_000;
}

async function succeeded(controlPlane) {
  const text = await (await fetch(`${controlPlane.httpUrl}/metrics`, { headers: { authorization: `Bearer ${await apiKey(controlPlane)}` } })).text();
  return Number(/^matfleet_update_targets_total\{outcome="succeeded"\} (\d+)/m.exec(text)?.[1] ?? 0);
}

const apiKey = async ({ apiKeyFile }) => (await readFile(apiKeyFile, 'utf8')).trim();

/** Seconds after kill -9 until the control plane, started again at once, has its devices back. */
async function killed(controlPlane, seen, devices) {
  await controlPlane.process.kill('SIGKILL');
  const killedAt = performance.now();
  const atS = () => round((performance.now() - killedAt) / 1_000);
  let least = devices;
  const restarted = controlPlane.restart();
  await waitFor('the devices to notice', async () => (least = (await seen()).connected) < 0.05 * devices, { timeoutMs: 30_000, everyMs: 200 }).catch(
    () => undefined,
  );
  await restarted;
  const upS = atS();
  const until = async (share) => {
    await waitFor(`${share * 100} % to be back`, async () => (await seen()).connected >= share * devices, { timeoutMs: 200_000, everyMs: 200 });
    return atS();
  };
  const back95S = await until(0.95);
  const backAllS = await until(1).catch(() => null);
  return { upAfterKillS: upS, connectedLeast: least, back95S, backAllS };
}

const TICKS_PER_SECOND = 100;

/** User and system time of the process, children not counted. */
async function cpuSeconds(controlPlane) {
  const fields = (await readFile(`/proc/${controlPlane.process.pid}/stat`, 'utf8')).split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

const rssBytes = async (controlPlane) => (await memoryOf(controlPlane.process.pid)).rssBytes;

const round = (value, digits = 1) => Number(value.toFixed(digits));
