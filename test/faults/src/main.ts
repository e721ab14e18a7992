import { Command, Option } from 'commander';
import { Fleet, nanoPackage, publish } from '@matfleet/harness';
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
await program.parseAsync();
