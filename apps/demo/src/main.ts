import { Command } from 'commander';
import { Fleet, heldOutCommands, seededRandom, sleep } from '@matfleet/harness';
import { Report } from './report.js';
import { rollOut, stopBadVersion } from './rollout-steps.js';
import { askEachAgent, demoCommands, fallback, killEngine, queuedInference, showSlices } from './steps.js';

interface Options {
  once?: boolean;
  json?: boolean;
  database?: string;
  redis?: string;
  seed: string;
}

const options = new Command('demo')
  .description(
    'Starts a control plane and three agents of different size on this machine and shows what Matfleet does, with real processes and a real model.',
  )
  .option('--once', 'stop after the last step; exit code 0 only if every step really happened')
  .option('--json', 'print one JSON document on stdout instead of the story (implies --once)')
  .option('--database <url>', 'use this PostgreSQL instead of the embedded one')
  .option('--redis <url>', 'use this Redis for the queues')
  .option('--seed <n>', 'chooses the commands and the moment of the kill', String(Date.now() % 100_000))
  .parse()
  .opts<Options>();

const print = (line: string): void => void (options.json ? process.stderr : process.stdout).write(`${line}\n`);
const report = new Report(print);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort(new Error(`stopped by ${signal}`)));
const aborted = new Promise<never>((_resolve, reject) =>
  interrupted.signal.addEventListener('abort', () => reject(interrupted.signal.reason as Error)),
);
aborted.catch(() => undefined);

let starting: Promise<Fleet> | undefined;
let staysUp = false;
let failure: unknown;
let document: Record<string, unknown> = {};
try {
  await Promise.race([story(), aborted]);
} catch (error) {
  if (!staysUp) failure = error;
  print(`\n${error instanceof Error ? error.message : String(error)}`);
}
// An interrupt while the fleet starts leaves processes behind that the start itself removes; wait for it.
const stopped = await stop();
if (!stopped.clean) failure ??= new Error('a process did not stop when asked');
if (options.json)
  process.stdout.write(
    `${JSON.stringify({ ok: failure === undefined, ...document, steps: report.steps, error: failure === undefined ? null : String(failure) })}\n`,
  );
process.exit(failure === undefined ? 0 : interrupted.signal.aborted ? 130 : 1);

async function story(): Promise<void> {
  const seed = Number(options.seed);
  print(`Matfleet demo, seed ${seed}`);
  const all = await heldOutCommands();
  const commands = demoCommands(all, seed);
  const shown = await report.step(
    'A control plane and three agents of different size',
    () => start(),
    ({ model }) => ({ modelVersion: model.versionId }),
  );
  const { controlPlane } = shown;
  await report.attempt('Each one is assigned its own slice of nano, with a reason', () => showSlices(shown, report));
  await report.attempt('A local application asks each agent over its own socket', () =>
    askEachAgent(shown, report, commands.slice(0, 3), shown.model.versionId),
  );
  await report.attempt('An engine is killed and comes back', () => killEngine(shown.agent('gateway'), report, commands[3]!));
  await report.attempt('A queued inference with a quality floor that only the largest meets', () => queuedInference(shown, report, commands[4]!));
  await report.attempt('The device that answers is killed: a fallback finishes, once', () => fallback(shown, report, commands, seededRandom(seed)));
  await report.attempt('A rollout brings the same weights at half the bits, in two waves', () => rollOut(shown, report, commands[5]!));
  await report.attempt('A bad version is stopped by a gate in its first wave, and taken back', () => stopBadVersion(shown, report, commands[6]!));
  const devices = await shown.api.devices();
  const addresses = {
    rest: `${controlPlane.httpUrl}/api/v1`,
    openapi: `${controlPlane.httpUrl}/api/docs`,
    graphql: `${controlPlane.httpUrl}/graphql`,
    metrics: `${controlPlane.httpUrl}/metrics`,
    console: `${controlPlane.httpUrl}/`,
    apiKeyFile: controlPlane.apiKeyFile,
  };
  document = {
    seed,
    devices: shown.agents.map(({ name }) => {
      const device = devices.find((candidate) => candidate.name === name);
      return {
        name,
        slice: device?.observed?.sliceId ?? '',
        reason: device?.desired?.reason ?? device?.phaseError ?? '',
        modelVersion: device?.observed?.modelVersionId ?? '',
      };
    }),
    addresses,
  };
  print('');
  for (const [name, address] of Object.entries(addresses)) print(`   ${name.padEnd(10)} ${address}`);
  if (options.once || options.json) {
    const { failed } = report;
    if (failed.length > 0) throw new Error(`${failed.length} of ${report.steps.length} steps failed: ${failed.map(({ step }) => step).join('; ')}`);
    return;
  }
  print('\nThe fleet stays up. Ctrl-C stops everything.');
  staysUp = true;
  await sleep(2 ** 31 - 1, undefined, { signal: interrupted.signal }).catch(() => undefined);
}

function start(): Promise<Fleet> {
  starting = Fleet.start({ databaseUrl: options.database, redisUrl: options.redis, onProgress: (what) => report.line(what) });
  return starting;
}

async function stop(): Promise<{ clean: boolean }> {
  const running = await starting?.catch(() => undefined);
  return running ? running.stop() : { clean: true };
}
