import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe } from '@jest/globals';

/** True when this machine has redis-server. */
export const hasRedis = spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0;

/** `describe` where redis-server is installed; elsewhere the specs inside are skipped, named and counted at the end of the run. */
export const describeWithRedis = hasRedis ? describe : describe.skip;

/**
 * The environment in which a process finds SwiftShader, the software Vulkan driver that Chromium carries; undefined where it is not installed. It
 * must be set when the process starts.
 */
export const softwareVulkan = ['/usr/lib/chromium', '/usr/lib/chromium-browser', '/opt/google/chrome']
  .filter((dir) => ['vk_swiftshader_icd.json', 'libvk_swiftshader.so', 'libvulkan.so.1'].every((file) => existsSync(join(dir, file))))
  .map((dir) => ({ VK_DRIVER_FILES: join(dir, 'vk_swiftshader_icd.json'), LD_LIBRARY_PATH: dir }))[0];

/** `describe` where a software Vulkan driver is installed; elsewhere skipped like `describeWithRedis`. */
export const describeWithVulkan = softwareVulkan ? describe : describe.skip;

export interface RedisServer {
  url: string;
  /** Ends the server at once, as a crash would; `start()` brings it back on the same port. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Ends it and removes its files. */
  stop(): Promise<void>;
}

/** A real Redis on a free port, keeping its data through `kill` and `start`. */
export async function startRedis(): Promise<RedisServer> {
  const dir = await mkdtemp(join(tmpdir(), 'matfleet-redis-'));
  const port = await freePort();
  let server: ReturnType<typeof spawn> | undefined;
  const start = async (): Promise<void> => {
    server = spawn(
      'redis-server',
      ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--appendonly', 'yes', '--save', '', '--maxmemory-policy', 'noeviction'],
      { stdio: 'ignore' },
    );
    for (let attempt = 0; attempt < 200; attempt++, await sleep(25)) if (await pings(port)) return;
    throw new Error(`redis-server did not answer on port ${port} within 5 s`);
  };
  const kill = async (): Promise<void> => {
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    kill,
    start,
    stop: async () => {
      await kill();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function pings(port: number): Promise<boolean> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  try {
    await once(socket, 'connect');
    socket.write('PING\r\n');
    const [reply] = (await once(socket, 'data', { signal: AbortSignal.timeout(1_000) })) as [Buffer];
    return reply.toString().startsWith('+PONG');
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
  return address.port;
}
