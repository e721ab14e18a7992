import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { Fleet, makeRunDir, nanoPackage, PostgresProcess, publish, RedisProcess } from '@matfleet/harness';
import { activationTable, runActivation } from './activation/report.js';
import { runFleet } from './fleet.js';
import { runHalfOpen } from './half-open.js';
import { runFrozenPeer } from './frozen-peer.js';
import { InferenceRig, runInferenceFaults, type InferenceFaults } from './inference.js';
import { runSeed } from './line.js';
import { trialsPassed } from './trials.js';

const HEARTBEAT_MS = 5_000;

const program = new Command('test:faults').description(
  'Runs the whole line under random kill -9 and checks that nothing is lost and nothing happens twice.',
);
program
  .command('line')
  .description('kills agents, engines and the control plane while a rollout and inferences are under way')
  .option('--seeds <n>', 'how many seeds', '50')
  .option('--from <n>', 'the first seed', '1')
  .option('--database <url>', 'use this PostgreSQL instead of the embedded one')
  .option('--redis <url>', 'use this Redis for the queues')
  .addOption(new Option('--keep', 'keep the run directory of a failed seed'))
  .action(async (options: { seeds: string; from: string; database?: string; redis?: string; keep?: boolean }) => {
    const fleet = await Fleet.start({ databaseUrl: options.database, redisUrl: options.redis, onProgress: (what) => console.log(`… ${what}`) });
    let failed = 0;
    let passed = 0;
    const stop = async (): Promise<void> => {
      if (failed > 0 && options.keep) console.log(`kept: ${fleet.dir}`);
      await fleet.stop({ keep: failed > 0 && options.keep === true });
    };
    process.on('SIGINT', () => void stop().then(() => process.exit(130)));
    try {
      await fleet.converged(fleet.model.versionId);
      const other = await nanoPackage('int8', 128);
      await publish(other.dir, fleet.controlPlane.httpUrl, fleet.controlPlane.apiKeyFile);
      const first = Number(options.from);
      for (let seed = first; seed < first + Number(options.seeds); seed++) {
        try {
          const result = await runSeed(fleet, seed, [fleet.model.versionId, other.versionId]);
          passed++;
          console.log(
            `seed ${seed}: ok in ${result.seconds} s; killed ${result.kills.join(', ')}; ${result.inferences} inferences in ${result.attempts} attempts; ${result.localAnswers} local answers`,
          );
        } catch (error) {
          failed++;
          console.log(`seed ${seed}: FAILED: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
          if (options.keep) break;
          // The next seed starts from live processes, whatever this one left.
          for (const agent of fleet.agents) if (agent.process.exited) await agent.restart();
          if (fleet.controlPlane.process.exited) await fleet.controlPlane.restart();
        }
      }
    } finally {
      await stop();
    }
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed > 0 ? 1 : 0;
  });
program
  .command('fleet')
  .description("virtual devices on broken networks and real agents, while agents and the control plane are killed; prints the checker's report")
  .option('--devices <n>', 'virtual devices', '200')
  .option('--seeds <n>', 'how many seeds', '1')
  .option('--from <n>', 'the first seed', '1')
  .option('--seconds <n>', 'how long faults happen', '20')
  .option('--commands <n>', 'inferences and targets of the rollout together (default: 20 inferences)')
  .option('--replicas <n>', 'processes of the control plane; several stand on a PostgreSQL and a Redis of their own, which are killed too', '1')
  .option('--kills <n>', 'processes killed (default: two to four)')
  .option('--redis-away <s>', 'in the middle Redis stays away for so long (with several replicas)', '0')
  .option('--garbage <n>', 'afterwards so many connections that speak nonsense', '0')
  .option('--stop <s>', 'afterwards no control plane for so long: is a device called gone?', '0')
  .option('--trials', 'afterwards a cloned device, revoked ones, one that falls silent, and oversized messages')
  .option('--database <url>', 'use this PostgreSQL')
  .option('--redis <url>', 'use this Redis for the queues')
  .option('--keep', 'keep the run directory, with the histories, when a rule was broken')
  .action(async (options: FleetOptions) => {
    let broken = 0;
    for (let seed = Number(options.from); seed < Number(options.from) + Number(options.seeds); seed++) {
      // A fleet of its own for each seed: the devices of the last one are gone for good.
      if (!(await runOneFleet(seed, options))) broken++;
    }
    process.exitCode = broken > 0 ? 1 : 0;
  });
program
  .command('half-open')
  .description('devices in a network namespace whose bytes are lost one way and then the other, without a word; needs root and iproute2')
  .option('--devices <n>', 'virtual devices behind that network', '30')
  .action(async ({ devices }: { devices: string }) => {
    const result = await runHalfOpen(Number(devices), (what) => console.error(`… ${what}`));
    console.log(JSON.stringify(result ?? { skipped: 'network namespaces need root and iproute2 (ip)' }, null, 2));
    process.exitCode = result?.ok === false ? 1 : 0;
  });
program
  .command('activation')
  .description('kills a real agent at every point of its activations, then cuts the power after every operation on its disk; prints a report')
  .option('--activations <n>', 'activations, each with a kill -9', '1000')
  .option('--sample <n>', 'only so many activations, and so many starts after a power cut')
  .option('--devices <n>', 'devices that share them', '1')
  .option('--minutes <n>', 'begin none after so many minutes', '600')
  .option('--seed <n>', 'of every choice', '1')
  .option('--out <file>', 'write the report there as a table')
  .action(async (options: { activations: string; sample?: string; devices: string; minutes: string; seed: string; out?: string }) => {
    const onProgress = (what: string): void => console.error(`… ${what}`);
    const activations = Number(options.sample ?? options.activations);
    const report = await runActivation({
      ...{
        activations,
        devices: Number(options.devices),
        minutes: Number(options.minutes),
        boots: Math.min(activations, 100),
        seed: Number(options.seed),
      },
      onProgress,
    });
    console.log(JSON.stringify(report, null, 2));
    if (options.out) await writeFile(options.out, activationTable(report));
    process.exitCode = report.ok ? 0 : 1;
  });
program
  .command('inference')
  .description('three equal agents, killed and frozen with their engines while applications ask and inferences are queued; prints a report')
  .option('--seeds <n>', 'how many seeds', '20')
  .option('--from <n>', 'the first seed', '1')
  .action(async ({ seeds, from }: { seeds: string; from: string }) => {
    const results: InferenceFaults[] = [];
    const rig = await InferenceRig.start();
    try {
      for (let seed = Number(from); seed < Number(from) + Number(seeds); seed++) {
        const result = await runInferenceFaults(rig, seed);
        console.error(`… seed ${seed}: ${result.faults.join(', ')}; ${result.wentOn} answers went on elsewhere`);
        for (const problem of result.problems) console.error(`  ${problem}`);
        results.push(result);
      }
    } finally {
      await rig.stop();
    }
    console.error('… one of two devices frozen');
    const pair = await InferenceRig.start(2);
    const frozenPeer = await runFrozenPeer(pair).finally(() => pair.stop());
    const sum = (key: 'queued' | 'attempts' | 'local' | 'wentOn' | 'agentGone' | 'lost' | 'doubled' | 'wrongText'): number =>
      results.reduce((total, one) => total + one[key], 0);
    const [lost, doubled, wrongText] = [sum('lost'), sum('doubled'), sum('wrongText')];
    const counts = { queued: sum('queued'), attempts: sum('attempts'), local: sum('local'), wentOn: sum('wentOn'), agentGone: sum('agentGone') };
    console.log(JSON.stringify({ seeds: results.length, ...counts, lost, doubled, wrongText, frozenPeer }, null, 2));
    process.exitCode = lost + doubled + wrongText + frozenPeer.falseFailures > 0 ? 1 : 0;
  });
await program.parseAsync();

interface FleetOptions extends Record<'devices' | 'seeds' | 'from' | 'seconds' | 'replicas' | 'redisAway' | 'garbage' | 'stop', string> {
  trials?: boolean;
  commands?: string;
  kills?: string;
  database?: string;
  redis?: string;
  keep?: boolean;
}

/** Prints the report; false when a rule was broken. */
async function runOneFleet(seed: number, options: FleetOptions): Promise<boolean> {
  const onProgress = (what: string): void => console.error(`… ${what}`);
  const devices = Number(options.devices);
  const replicas = Number(options.replicas);
  const run = await makeRunDir('services');
  const services: { postgres?: PostgresProcess; redis?: RedisProcess } = {};
  let fleet: Fleet | undefined;
  let ok = false;
  try {
    if (replicas > 1 && !options.database) services.postgres = await PostgresProcess.start(join(run.dir, 'postgres'));
    if (replicas > 1 && !options.redis) services.redis = await RedisProcess.start(join(run.dir, 'redis'));
    fleet = await Fleet.start({
      databaseUrl: options.database ?? services.postgres?.url,
      redisUrl: options.redis ?? services.redis?.url,
      replicas,
      env: { MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS), MATFLEET_LEASE_MS: String(3 * HEARTBEAT_MS) },
      onProgress,
    });
    const other = await nanoPackage('int8', 128);
    await publish(other.dir, fleet.controlPlane.httpUrl, fleet.controlPlane.apiKeyFile);
    const result = await runFleet(fleet, {
      devices,
      seed,
      seconds: Number(options.seconds),
      inferences: options.commands === undefined ? 20 : Math.max(1, Number(options.commands) - devices - fleet.agents.length),
      kills: options.kills === undefined ? undefined : Number(options.kills),
      services,
      redisAwaySeconds: Number(options.redisAway),
      garbage: Number(options.garbage),
      stopSeconds: Number(options.stop),
      trialLeaseMs: options.trials ? 3 * HEARTBEAT_MS : undefined,
      versions: [fleet.model.versionId, other.versionId],
      onProgress,
    });
    ok = result.ok && (result.standstill?.falseOffline ?? 0) === 0 && (!result.trials || trialsPassed(result.trials));
    console.log(JSON.stringify(result, null, 2));
  } catch (error) {
    console.error(`seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  } finally {
    const keep = !ok && options.keep === true;
    if (keep) console.error(`kept: ${fleet?.dir ?? run.dir}`);
    await fleet?.stop({ keep });
    await services.redis?.kill();
    await services.postgres?.stop();
    await run.remove();
  }
  return ok;
}
