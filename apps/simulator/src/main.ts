import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { checkHistoryFiles, HistoryFile } from '@matfleet/history';
import { NO_FAULTS, readScript } from './network/script.js';
import { showProgress } from './progress.js';
import { Simulation, type SimulatedFleet } from './simulation.js';
import { DEVICES_PER_PROCESS, sharesOf, SpreadSimulation, type Share } from './spread.js';
import { summarise } from './statistics.js';

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
  processes?: number;
  reports: number;
  duration?: number;
  script?: string;
  history?: string;
  json?: string;
  readyFile?: string;
  status?: string;
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
  .option('--processes <n>', `spread the devices over so many processes (default: one for every ${DEVICES_PER_PROCESS} devices)`, number(1, 64))
  .option('--reports <n>', 'times a minute that each device reports its state again', number(0, 600), 0)
  .option('--duration <s>', 'stop so many seconds after the last device was started, the script included (default: Ctrl-C)', number(0, 604_800))
  .option('--script <file>', 'faults, YAML or JSON')
  .option('--model-memory <bytes,…>', "grants to draw from, in bytes, instead of the boxes' own", sizes)
  .option('--history <file>', 'record what the devices see, as JSON lines; several processes write <file>.1, <file>.2, …')
  .option('--ready-file <file>', 'written when every device has been started')
  .option('--json <file>', 'write the result as JSON, - for standard output; acknowledgements are timed once every device was started')
  .option('--status <file>', 'the counts so far as JSON, written every second; SIGUSR2 makes acknowledgements be timed anew')
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
  const { server, devices, seed, ramp, reports: reportsPerMinute, script, history: historyPath } = options;
  const processes = Math.min(devices, Math.round(options.processes ?? Math.ceil(devices / DEVICES_PER_PROCESS)));
  const whole: Share = {
    ...{ server, joinToken, first: 0, devices, seed, ramp, reportsPerMinute, script, history: historyPath },
    modelMemoryBytes: options.modelMemory ?? [],
  };
  // Read here too, so that a fault in it is told before anything starts.
  const faults = script === undefined ? NO_FAULTS : readScript(script);
  const history = historyPath === undefined || processes > 1 ? undefined : new HistoryFile(historyPath);
  const fleet: SimulatedFleet =
    processes > 1
      ? new SpreadSimulation(sharesOf(whole, processes))
      : new Simulation({ ...whole, script: faults, record: (event) => history?.add(event) });
  const hideProgress = options.quiet ? (): void => {} : showProgress(fleet, devices);
  const status = options.status === undefined ? undefined : setInterval(() => writeWhole(options.status!, summarise(fleet.counts())), 1_000);
  process.on('SIGUSR2', () => fleet.resetAcks());
  const interrupted = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  const run = async (): Promise<void> => {
    await fleet.start();
    fleet.resetAcks();
    if (options.readyFile) writeWhole(options.readyFile, { devices: fleet.counts().started, pid: process.pid });
    if (options.duration === undefined) {
      await fleet.playScript();
      await interrupted;
    } else await Promise.all([fleet.playScript(), delay(options.duration * 1_000, undefined, { ref: false })]);
  };
  let failure: unknown;
  await Promise.race([run().catch((error: unknown) => (failure = error)), interrupted]);
  clearInterval(status);
  const summary = summarise(fleet.counts());
  await fleet.stop();
  hideProgress();
  history?.close();
  if (failure !== undefined) throw failure;
  const result = { devices, seed, processes, ...summary };
  if (options.json === '-') console.log(JSON.stringify(result, null, 2));
  else if (options.json) writeWhole(options.json, result);
}

/** By rename, so that a reader sees all of it or nothing. */
function writeWhole(path: string, content: object): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(content, null, 2)}\n`);
  renameSync(`${path}.new`, path);
}

try {
  await program.parseAsync();
} catch (error) {
  console.error(`matfleet-sim: ${(error as Error).message}`);
  process.exitCode = 1;
}
