// A fleet to measure: replicas of the control plane on this machine, and a simulator for each of them.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bin, ControlPlaneProcess, ManagedProcess, PostgresProcess, RedisProcess, waitFor } from '@matfleet/harness';
import { memoryOf } from './memory.mjs';

const TICKS_PER_SECOND = 100;
const ADDED = ['started', 'enrolled', 'connected', 'converged', 'sessions', 'reports', 'beats', 'errors', 'rssBytes', 'emptyRssBytes', 'acksTimed'];
const WORST = ['ackP50Ms', 'ackP99Ms'];

/** One replica has the embedded PostgreSQL and no Redis; several share one of each. */
export async function startControlPlanes({ dir, replicas, env }) {
  const stops = [];
  const stop = async () => {
    for (const each of stops.reverse()) await each();
  };
  try {
    let shared = {};
    if (replicas > 1) {
      const postgres = await PostgresProcess.start(join(dir, 'postgres'));
      stops.push(() => postgres.stop());
      const redis = await RedisProcess.start(join(dir, 'redis'));
      stops.push(() => redis.kill());
      shared = { databaseUrl: postgres.url, redisUrl: redis.url, dataDir: join(dir, 'control-plane/data') };
    }
    const controlPlanes = [];
    for (let index = 0; index < replicas; index += 1) {
      const controlPlane = await ControlPlaneProcess.start({
        dir: join(dir, index === 0 ? 'control-plane' : `control-plane-${index + 1}`),
        env,
        ...shared,
      });
      stops.push(() => controlPlane.stop());
      controlPlanes.push(controlPlane);
    }
    return { controlPlanes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** As many devices at each replica, give or take one. */
export async function startDevices(controlPlanes, { dir, devices, ramp, reportsPerMinute }) {
  const simulators = [];
  for (const [index, controlPlane] of controlPlanes.entries()) {
    const share = Math.floor(((index + 1) * devices) / controlPlanes.length) - Math.floor((index * devices) / controlPlanes.length);
    const { token } = await controlPlane.api.createJoinToken(share);
    const at = (name) => join(dir, `sim-${index + 1}-${name}`);
    await writeFile(at('token'), token, { mode: 0o600 });
    const simulator = ManagedProcess.start(
      'simulator',
      bin.simulator,
      [
        ...['--server', controlPlane.deviceUrl, '--join-token-file', at('token'), '--devices', String(share), '--seed', String(index + 1)],
        ...['--ramp', String(ramp / controlPlanes.length), '--reports', String(reportsPerMinute)],
        ...['--ready-file', at('ready.json'), '--status', at('status.json'), '--json', at('result.json'), '--quiet'],
      ],
      { logFile: at('simulator.log') },
    );
    simulators.push({ process: simulator, at });
  }
  return new Devices(simulators);
}

class Devices {
  constructor(simulators) {
    this.simulators = simulators;
  }

  async started(timeoutMs) {
    await Promise.all(this.simulators.map(({ process, at }) => process.ready(at('ready.json'), timeoutMs)));
  }

  /** What the simulators have counted; undefined before the first count. Of quantiles the worst. */
  async counts() {
    const each = await Promise.all(this.simulators.map(({ at }) => readFile(at('status.json'), 'utf8').then(JSON.parse, () => undefined)));
    return each.includes(undefined) ? undefined : merge(each);
  }

  until(what, done, timeoutMs, everyMs = 250) {
    return waitFor(
      what,
      async () => {
        const gone = this.simulators.find(({ process }) => process.exited);
        if (gone) throw new Error(`a simulator ended:\n${gone.process.logTail()}`);
        const counts = await this.counts();
        return counts && done(counts) && counts;
      },
      { timeoutMs, everyMs },
    );
  }

  timeAnew() {
    for (const { process: simulator } of this.simulators) process.kill(simulator.pid, 'SIGUSR2');
  }

  /** Ends them; returns what they counted. */
  async finish() {
    await Promise.all(this.simulators.map(({ process }) => process.kill('SIGINT')));
    const results = await Promise.all(this.simulators.map(async ({ at }) => JSON.parse(await readFile(at('result.json'), 'utf8'))));
    return { ...merge(results), processes: results.reduce((sum, { processes }) => sum + processes, 0) };
  }

  async kill() {
    await Promise.all(this.simulators.map(({ process }) => (process.exited ? undefined : process.kill())));
  }

  logTail() {
    return this.simulators.map(({ process }) => process.logTail()).join('\n');
  }
}

function merge(each) {
  const errorReasons = {};
  for (const counts of each)
    for (const [reason, count] of Object.entries(counts.errorReasons)) errorReasons[reason] = (errorReasons[reason] ?? 0) + count;
  return {
    ...Object.fromEntries(ADDED.map((key) => [key, each.reduce((sum, counts) => sum + counts[key], 0)])),
    ...Object.fromEntries(WORST.map((key) => [key, Math.max(...each.map((counts) => counts[key] ?? 0))])),
    errorReasons,
  };
}

/** User and system time of the processes, their children not counted. */
export async function cpuSeconds(controlPlanes) {
  const each = controlPlanes.map(async (controlPlane) => {
    const fields = (await readFile(`/proc/${controlPlane.process.pid}/stat`, 'utf8')).split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  });
  return (await Promise.all(each)).reduce((sum, seconds) => sum + seconds, 0);
}

export async function rssBytes(controlPlanes) {
  const each = await Promise.all(controlPlanes.map(async (controlPlane) => (await memoryOf(controlPlane.process.pid)).rssBytes));
  return each.reduce((sum, bytes) => sum + bytes, 0);
}

/** All samples of the metric by their labels, each added over the replicas. */
export async function metric(controlPlanes, name) {
  const samples = new Map();
  for (const { httpUrl, apiKey } of controlPlanes) {
    const text = await (await fetch(`${httpUrl}/metrics`, { headers: { authorization: `Bearer ${apiKey}` } })).text();
    for (const [, labels, value] of text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm')))
      samples.set(labels ?? '', (samples.get(labels ?? '') ?? 0) + Number(value));
  }
  return samples;
}
