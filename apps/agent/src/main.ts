import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { deviceKey, publicKeyHashOf } from '@matfleet/device';
import { startTracing } from '@matfleet/tracing';
import { Command } from 'commander';
import { pino } from 'pino';
import { Agent } from './agent.js';
import { parseConfig, type Config } from './config.js';

const command = new Command('matfleet-agent')
  .description('Runs one slice of a model on this device, answers local applications and keeps in touch with the control plane.')
  .option('--join <url>', 'the control plane, https://host:port')
  .option('--token <token>', 'join token, needed once (better: MATFLEET_TOKEN or the config file)')
  .option('--trust-root <file>', "the fleet's root metadata; without it the control plane's first one is taken")
  .option('--name <name>', "this device's name (default: the host's)")
  .option('--model-memory <size>', 'granted to weights, K/V and activations, for example 2MiB or 1.5GB')
  .option('--data <dir>', 'state and model store (default: .data/agent)')
  .option('--socket <path>', 'Unix socket of the local service (default: <data>/agent.sock)')
  .option('--port <number>', 'loopback port of the local service, 0 for any (default: 7480)')
  .option('--http <address>', "host:port of OpenAI's and Ollama's APIs, port 0 for any, or off (default: 127.0.0.1:7481)")
  .option('--http-token <token>', 'bearer token of these APIs; needed beyond loopback (better: MATFLEET_HTTP_TOKEN or the config file)')
  .option('--http-host <names>', 'names beside localhost by which callers may address them, with commas between')
  .option('--tool-prompt <kind>', 'describe tools to the model, or none for one that was trained on its functions (default: describe)')
  .option('--bandwidth <size>', 'most bytes per second that downloads take together, for example 2MB (default: no limit)')
  .option('--quiet-hours <hours>', "no downloads then, in this device's time: 08:00-20:00, several with commas between")
  .option('--downloads <number>', 'chunks that are fetched at a time (default: 4)')
  .option('--ready-file <path>', 'written as JSON once the local service is open, and when the engine changes')
  .option('--hot-row-bytes <size>', 'memory for the rows of the embedding tables used last, for example 4MiB')
  .option('--threads <number>', 'threads of one operator')
  .option('--box <kind>', 'dedicated to the model, or shared with other work (default: shared)')
  .option('--provider <name>', 'what computes the model: cpu, webgpu (in the package; needs Vulkan) or cuda (to be installed) (default: cpu)')
  .option('--accelerator-memory <size>', "granted of webgpu's or cuda's memory, for example 4GiB (default: no limit)")
  .option('--queue-limit <number>', 'inferences that may wait (default: 8)')
  .option('--fallback <reach>', 'who may answer what this device cannot: device (nobody), site (same label site) or fleet (default: fleet)')
  .option('--memory-limit <kind>', 'cgroup or watchdog (default: what works)')
  .option('--log-level <level>', 'debug, info, warn, error or silent (default: info)')
  .option('--show-key', "print the SHA-256 of this device's public key, making the key if there is none, and end")
  .option('--config <file>', 'the same settings as JSON, in camel case');

const flags = command.parse().opts<Record<string, unknown> & { config?: string; showKey?: boolean }>();

function readConfig(): Config {
  const { config: path = process.env['MATFLEET_CONFIG'], showKey: _showKey, ...rest } = flags;
  let file: Record<string, unknown> = {};
  if (path) {
    try {
      file = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    } catch (error) {
      throw new Error(`cannot read the config file ${path}: ${(error as Error).message}`, { cause: error });
    }
  }
  return parseConfig(rest, process.env, file);
}

let config: Config;
try {
  config = readConfig();
} catch (error) {
  console.error((error as Error).message);
  process.exit(2);
}

if (flags.showKey) {
  console.log(publicKeyHashOf(await deviceKey(join(config.data, 'identity'))));
  process.exit(0);
}

const log = pino({ level: config.logLevel, base: { device: config.name } });
const tracing = await startTracing({
  service: 'matfleet-agent',
  attributes: { 'service.instance.id': config.name },
  onProblem: (message) => log.warn({ reason: message }, 'spans are not delivered'),
}).catch((error: Error) => {
  console.error(error.message);
  process.exit(2);
});
const agent = new Agent(config, log);

let stopping = false;
const stop = (signal: NodeJS.Signals): void => {
  if (stopping) return;
  stopping = true;
  log.info({ signal }, 'stopping');
  setTimeout(() => process.exit(1), 5_000).unref();
  void agent
    .stop()
    .then(() => tracing?.close())
    .then(() => process.exit(0));
};
process.on('SIGTERM', stop);
process.on('SIGINT', stop);

try {
  const address = await agent.start();
  log.info({ ...address, rssBytes: process.memoryUsage.rss() }, 'serving');
} catch (error) {
  log.fatal({ reason: (error as Error).message }, 'cannot start');
  await agent.stop().catch(() => {});
  process.exit(1);
}
