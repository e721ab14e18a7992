// How many devices one control plane carries on this machine, or several replicas of it, with the simulators and the databases beside them. See README.md.
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeRunDir, nanoPackage, publish, sleep, waitFor } from '@matfleet/harness';
import { loadedFleet } from './support/loaded-fleet.mjs';
import { addFleetRow, fleetRow } from './support/fleet-table.mjs';
import { cpuSeconds, metric, rssBytes, startControlPlanes, startDevices } from './support/fleet-rig.mjs';
import { whole } from './support/options.mjs';

export const usage = `[options]
  --devices N  virtual devices (default 1000)
  --replicas N processes of the control plane; several share a PostgreSQL and a Redis (default 1)
  --ramp N     devices started in a second (default 100)
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
      replicas: { type: 'string', default: '1' },
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
    replicas: whole('--replicas', values.replicas),
    ramp: whole('--ramp', values.ramp),
    steadyS: whole('--steady', values.steady),
    kill: values.kill,
    profile: values.profile,
  };
  const runDir = await makeRunDir('bench');
  const { dir } = runDir;
  let stop;
  try {
    const [model, other] = [await nanoPackage('int8'), await nanoPackage('int8', 128)];
    const env = {
      MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS),
      MATFLEET_LEASE_MS: String(3 * HEARTBEAT_MS),
      MATFLEET_LOG_LEVEL: 'warn',
      ...(values.profile && { NODE_OPTIONS: `--import ${PROFILER}`, MATFLEET_BENCH_PROFILES: values.profile }),
    };
    const started = await startControlPlanes({ dir, replicas: options.replicas, env });
    stop = started.stop;
    const [first] = started.controlPlanes;
    for (const { dir: from } of [model, other]) await publish(from, first.httpUrl, first.apiKeyFile);
    const figures = await measure(started.controlPlanes, { ...options, dir, model });
    console.log(values.json ? JSON.stringify(figures, null, 2) : fleetRow(figures));
    if (values.write) await addFleetRow(figures);
    return 0;
  } finally {
    await stop?.();
    await runDir.remove();
  }
}

async function measure(controlPlanes, { devices, ramp, steadyS, kill, profile, dir, model }) {
  const emptyRss = await rssBytes(controlPlanes);
  const note = (text) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
  const signalAll = () => {
    for (const { process: replica } of controlPlanes) process.kill(replica.pid, 'SIGUSR2');
  };
  const profiled = async (work) => {
    if (profile) signalAll();
    const result = await work();
    if (profile) signalAll();
    return result;
  };

  const startedAt = performance.now();
  const simulated = await startDevices(controlPlanes, { dir, devices, ramp, reportsPerMinute: REPORTS_PER_MINUTE });
  try {
    const rampS = devices / ramp;
    const start = await profiled(async () => {
      const before = await cpuSeconds(controlPlanes);
      await simulated.started(120_000 + 3_000 * rampS);
      await simulated.until('all to connect', ({ connected }) => connected === devices, 120_000);
      const wallS = (performance.now() - startedAt) / 1_000;
      return { wallS, cpuS: (await cpuSeconds(controlPlanes)) - before };
    });
    note(`${devices} connected after ${round(start.wallS)} s`);
    await simulated.until('every device to run what it should', ({ converged }) => converged === devices, 120_000);
    const convergedS = (performance.now() - startedAt) / 1_000;

    // Past the first minute nothing of the start is left: its rows, its garbage.
    await sleep(Math.min(20_000, 1_000 * steadyS));
    const rest = await profiled(async () => {
      simulated.timeAnew();
      const before = { cpuS: await cpuSeconds(controlPlanes), atMs: performance.now() };
      await sleep(steadyS * 1_000);
      const seconds = (performance.now() - before.atMs) / 1_000;
      const coresUsed = ((await cpuSeconds(controlPlanes)) - before.cpuS) / seconds;
      await sleep(1_500);
      return { coresUsed, rss: await rssBytes(controlPlanes), load: loadavg()[0], ...(await simulated.counts()) };
    });
    note(`at rest: ${round(rest.coresUsed, 3)} cores, p99 ${rest.ackP99Ms} ms, ${Math.round((rest.rss - emptyRss) / devices / 1_000)} KB a device`);

    const loaded = await loadedFleet(controlPlanes, devices);
    note(`list p95 ${loaded.listP95Ms} ms, command p99 ${loaded.commandP99Ms} ms`);
    const rolloutS = await profiled(() => rolloutToAll(controlPlanes, model.versionId, devices));
    note(`one rollout to all: ${round(rolloutS)} s`);
    const back = kill ? await killed(controlPlanes[0], simulated, Math.floor(devices / controlPlanes.length), devices) : {};
    if (kill) note(`after kill -9: ${back.back95S} s, ${back.backAllS} s`);

    const end = await simulated.finish();
    return {
      devices,
      replicas: controlPlanes.length,
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
      rolloutS: round(rolloutS),
      ...back,
      reports: end.reports,
      simulatorBytesPerDevice: Math.round((rest.rssBytes - rest.emptyRssBytes) / devices),
      simulatorProcesses: end.processes,
      errors: end.errors,
      errorReasons: end.errorReasons,
    };
  } catch (error) {
    const logs = controlPlanes.map((controlPlane) => controlPlane.process.logTail()).join('\n');
    throw new Error(`${error.message}\nthe control plane's log ends:\n${logs}\nthe simulator's:\n${simulated.logTail()}`, { cause: error });
  } finally {
    await simulated.kill();
  }
}

/** Seconds until the control plane has noted every device as succeeded. Everybody runs the version published last: back to the first. */
async function rolloutToAll(controlPlanes, versionId, devices) {
  const startedAt = performance.now();
  await controlPlanes[0].api.startRollout(versionId);
  const succeeded = async () => (await metric(controlPlanes, 'matfleet_rollout_targets_total')).get('outcome="succeeded"') ?? 0;
  await waitFor('the rollout to end', async () => (await succeeded()) >= devices, { timeoutMs: 170_000, everyMs: 250 });
  return (performance.now() - startedAt) / 1_000;
}

/** Seconds after kill -9 until the control plane, started again at once, has its devices back: `held` of all of them. */
async function killed(controlPlane, simulated, held, devices) {
  await controlPlane.process.kill('SIGKILL');
  const killedAt = performance.now();
  const atS = () => round((performance.now() - killedAt) / 1_000);
  const others = devices - held;
  let least = devices;
  const restarted = controlPlane.restart();
  await waitFor('the devices to notice', async () => (least = (await simulated.counts()).connected) < others + 0.05 * held, {
    timeoutMs: 30_000,
    everyMs: 200,
  }).catch(() => undefined);
  await restarted;
  const upS = atS();
  const until = async (share) => {
    await simulated.until(`${share * 100} % to be back`, ({ connected }) => connected >= others + share * held, 200_000, 200);
    return atS();
  };
  // Not within the time is a figure too: what was measured before it is not thrown away.
  const back95S = await until(0.95).catch(() => null);
  const backAllS = back95S === null ? null : await until(1).catch(() => null);
  return { upAfterKillS: upS, connectedLeast: least, back95S, backAllS };
}

const round = (value, digits = 1) => Number(value.toFixed(digits));
