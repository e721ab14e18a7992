import { Command, Option } from 'commander';
import { Fleet, nanoPackage, publish } from '@matfleet/harness';
import { runFleet } from './fleet.js';
import { runSeed } from './line.js';

const program = new Command('test:faults').description(
  'Runs the whole line under random kill -9 and checks that nothing is lost and nothing happens twice.',
);
program
  .command('line')
  .description('kills agents, engines and the control plane while an update and inferences are under way')
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
  .option('--inferences <n>', 'inferences queued meanwhile', '20')
  .option('--database <url>', 'use this PostgreSQL instead of the embedded one')
  .option('--redis <url>', 'use this Redis for the queues')
  .option('--keep', 'keep the run directory, with the histories, when a rule was broken')
  .action(
    async (
      options: Record<'devices' | 'seeds' | 'from' | 'seconds' | 'inferences', string> & { database?: string; redis?: string; keep?: boolean },
    ) => {
      const onProgress = (what: string): void => console.error(`… ${what}`);
      let broken = 0;
      for (let seed = Number(options.from); seed < Number(options.from) + Number(options.seeds); seed++) {
        // A fleet of its own for each seed: the devices of the last one are gone for good.
        const fleet = await Fleet.start({ databaseUrl: options.database, redisUrl: options.redis, onProgress });
        let ok = false;
        try {
          const other = await nanoPackage('int8', 128);
          await publish(other.dir, fleet.controlPlane.httpUrl, fleet.controlPlane.apiKeyFile);
          const result = await runFleet(fleet, {
            devices: Number(options.devices),
            seed,
            seconds: Number(options.seconds),
            inferences: Number(options.inferences),
            versions: [fleet.model.versionId, other.versionId],
            onProgress,
          });
          ok = result.ok;
          console.log(JSON.stringify(result, null, 2));
        } catch (error) {
          console.error(`seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
        } finally {
          if (!ok) broken++;
          const keep = !ok && options.keep === true;
          if (keep) console.error(`kept: ${fleet.dir}`);
          await fleet.stop({ keep });
        }
      }
      process.exitCode = broken > 0 ? 1 : 0;
    },
  );
await program.parseAsync();
