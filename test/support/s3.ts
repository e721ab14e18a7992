import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BIN = createRequire(import.meta.url).resolve('s3rver/bin/s3rver.js');

export interface S3Server {
  readonly endpoint: string;
  readonly bucket: string;
  /** Ends it and removes its files. */
  stop(): Promise<void>;
}

/** A real S3 server in a process of its own, with one bucket. Its credentials are S3RVER and S3RVER. */
export async function startS3(): Promise<S3Server> {
  const dir = await mkdtemp(join(tmpdir(), 'matfleet-s3-'));
  const bucket = 'models';
  const server = spawn(process.execPath, [BIN, '--directory', dir, '--port', '0', '--configure-bucket', bucket], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let endpoint = '';
  for await (const line of createInterface({ input: server.stdout })) {
    const port = /:(\d+)\s*$/.exec(line)?.[1];
    if (!port) continue;
    endpoint = `http://127.0.0.1:${port}`;
    break;
  }
  server.stdout.resume();
  return {
    endpoint,
    bucket,
    stop: async () => {
      const gone = once(server, 'exit');
      server.kill('SIGKILL');
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
