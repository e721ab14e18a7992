import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { freePort } from './free-port.js';
import { waitFor } from './wait.js';

/** A Redis with its data on disk, in a process of its own. */
export class RedisProcess {
  private server: ChildProcess | undefined;

  private constructor(
    private readonly dir: string,
    private readonly port: number,
  ) {}

  static async start(dir: string): Promise<RedisProcess> {
    await mkdir(dir, { recursive: true });
    const redis = new RedisProcess(dir, await freePort());
    await redis.start();
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again on the same port and data. */
  async start(): Promise<void> {
    const { dir, port } = this;
    const options = { port, bind: '127.0.0.1', dir, appendonly: 'yes', save: '', 'maxmemory-policy': 'noeviction' };
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    this.server = spawn('redis-server', args, { stdio: 'ignore' });
    const { server } = this;
    server.on('error', () => undefined);
    await waitFor(
      'redis-server to listen',
      async () => {
        if (server.pid === undefined || server.exitCode !== null) throw new Error('redis-server does not start: is it installed?');
        const socket = connect(port, '127.0.0.1');
        return once(socket, 'connect').then(
          () => (socket.destroy(), true),
          () => false,
        );
      },
      { timeoutMs: 10_000, everyMs: 50 },
    );
  }

  /** Ends it at once, as a crash does. */
  async kill(): Promise<void> {
    const { server } = this;
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  }
}
