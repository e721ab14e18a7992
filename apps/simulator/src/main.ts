import { readFileSync, writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { checkHistoryFiles, HistoryFile } from '@matfleet/history';
import { NO_FAULTS, readScript } from './network/script.js';
import { showProgress } from './progress.js';
import { Simulation } from './simulation.js';

const number =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isFinite(value) || value < min || value > max) throw new InvalidArgumentError(`a number from ${min} to ${max}`);
    return value;
  };
const sizes = (text: string): number[] => text.split(',').map((part) => number(1, 2 ** 50)(part));

interface Options {
  server: string;
  joinToken?: string;
  joinTokenFile?: string;
  devices: number;
  seed: number;
  ramp: number;
  duration?: number;
  script?: string;
  history?: string;
  json?: string;
  readyFile?: string;
  modelMemory?: number[];
  quiet?: boolean;
}

const program = new Command('matfleet-sim')
  .description('A fleet of virtual devices that speak to a real control plane as agents do, over a network that a script breaks.')
  .option('--server <url>', "the control plane's device address, https://host:port")
  .option('--join-token <token>', 'with at least as many uses as there are devices (better: --join-token-file)')
  .option('--join-token-file <path>', 'a file that holds it')
  .option('--devices <n>', 'how many', number(1, 100_000), 100)
  .option('--seed <n>', 'decides boxes, groups and moments', number(0, 2_147_483), 1)
  .option('--ramp <n>', 'devices started in a second', number(0.1, 10_000), 50)
  .option('--duration <s>', 'stop so many seconds after the last device was started, the script included (default: Ctrl-C)', number(0, 604_800))
  .option('--script <file>', 'faults, YAML or JSON')
  .option('--model-memory <bytes,…>', "grants to draw from, in bytes, instead of the boxes' own", sizes)
  .option('--history <file>', 'record what the devices see, as JSON lines')
  .option('--ready-file <file>', 'written when every device has been started')
  .option('--json <file>', 'write the result as JSON, - for standard output; acknowledgements are timed once every device was started')
  .option('--quiet', 'no progress display')
  .action(simulate);
program
  .command('check <history...>')
  .description('checks recorded histories as one; prints a JSON report and exits with 1 when a rule was broken')
  .action(async (paths: string[]) => {
    const report = await checkHistoryFiles(paths);
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = report.ok ? 0 : 1;
  });

async function simulate(options: Options): Promise<void> {
  const joinToken = options.joinToken ?? (options.joinTokenFile && readFileSync(options.joinTokenFile, 'utf8').trim());
  if (!options.server || !joinToken) return program.error('--server and --join-token or --join-token-file are needed', { exitCode: 2 });
  const history = options.history === undefined ? undefined : new HistoryFile(options.history);
  const emptyRssBytes = process.memoryUsage.rss();
  const simulation = new Simulation({
    ...{ server: options.server, joinToken, devices: options.devices, seed: options.seed, ramp: options.ramp },
    script: options.script === undefined ? NO_FAULTS : readScript(options.script),
    modelMemoryBytes: options.modelMemory ?? [],
    record: (event) => history?.add(event),
  });
  const hideProgress = options.quiet ? (): void => {} : showProgress(simulation, options.devices);
  const interrupted = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  const run = async (): Promise<void> => {
    await simulation.start();
    simulation.statistics.resetAcks();
    if (options.readyFile) writeFileSync(options.readyFile, `${JSON.stringify({ devices: simulation.startedDevices, pid: process.pid })}\n`);
    if (options.duration === undefined) {
      await simulation.playScript();
      await interrupted;
    } else await Promise.all([simulation.playScript(), simulation.pause(options.duration * 1_000)]);
  };
  let failure: unknown;
  await Promise.race([run().catch((error: unknown) => (failure = error)), interrupted]);
  const summary = { ...simulation.statistics.summary(), rssBytes: process.memoryUsage.rss(), emptyRssBytes };
  await simulation.stop();
  hideProgress();
  history?.close();
  if (failure !== undefined) throw failure;
  const text = JSON.stringify({ devices: options.devices, seed: options.seed, ...summary }, null, 2);
  if (options.json === '-') console.log(text);
  else if (options.json) writeFileSync(options.json, `${text}\n`);
}

try {
  await program.parseAsync();
} catch (error) {
  console.error(`matfleet-sim: ${(error as Error).message}`);
  process.exitCode = 1;
}
