import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './embedded-postgres.js';

/** The built module: a process of its own must load it without Jest. */
const BUILT = fileURLToPath(new URL('../../dist/database/embedded-postgres.js', import.meta.url));

describe('embedded PostgreSQL', () => {
  let dir: string;
  let postgres: EmbeddedPostgres | undefined;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'matfleet-pg-'));
  });
  afterEach(async () => {
    const { directory } = JSON.parse(await readFile(join(dir, 'data', 'postgres.json'), 'utf8').catch(() => '{}')) as { directory?: string };
    await postgres?.stop();
    postgres = undefined;
    if (directory) await rm(directory, { recursive: true, force: true });
    await rm(dir, { recursive: true, force: true });
  });

  const start = async (log: (message: string) => void = () => {}): Promise<EmbeddedPostgres> =>
    (postgres = await startEmbeddedPostgres({ dataDir: join(dir, 'data'), log }));

  it('keeps its data through stop and start, listens on loopback with a password, and hides the password', async () => {
    const first = await start();
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await first.stop();
    await expect(query(first.url, 'SELECT 1')).rejects.toThrow();

    const second = await start();
    expect(second.adopted).toBe(false);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    expect((await stat(join(dir, 'data', 'postgres.json'))).mode & 0o077).toBe(0);
    const stranger = new URL(second.url);
    stranger.password = 'guessed';
    await expect(query(stranger.href, 'SELECT 1')).rejects.toThrow('password authentication failed');
  });

  it('adopts the server that a control plane killed with -9 left running', async () => {
    const owner = await startInProcess(join(dir, 'data'));
    await query(owner.url, 'CREATE TABLE kept AS SELECT 1 AS one');
    owner.child.kill('SIGKILL');
    await once(owner.child, 'exit');

    const adopted = await start();
    expect(adopted).toMatchObject({ adopted: true, pid: owner.pid, url: owner.url });
    expect(await query(adopted.url, 'SELECT one FROM kept')).toEqual([{ one: 1 }]);
  });

  it('recovers what was committed when owner and server were both killed', async () => {
    const owner = await startInProcess(join(dir, 'data'));
    await query(owner.url, 'CREATE TABLE kept AS SELECT 1 AS one');
    owner.child.kill('SIGKILL');
    process.kill(owner.pid, 'SIGKILL');
    await once(owner.child, 'exit');

    const second = await start();
    expect(second.adopted).toBe(false);
    expect(await query(second.url, 'SELECT one FROM kept')).toEqual([{ one: 1 }]);
  });

  it('brings the server back on the same port when it dies under a living owner', async () => {
    const server = await start();
    const killed = server.pid;
    process.kill(killed, 'SIGKILL');
    await eventually(async () => {
      expect(server.pid).not.toBe(killed);
      expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    });
  });

  it('refuses a data directory that another living control plane uses', async () => {
    const owner = await startInProcess(join(dir, 'data'));
    try {
      await expect(start()).rejects.toThrow('one data directory serves one control plane');
    } finally {
      owner.child.kill('SIGTERM');
      await once(owner.child, 'exit');
    }
  });
});

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 3_000 });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(sql)).rows as unknown[];
  } finally {
    await client.end();
  }
}

async function startInProcess(dataDir: string): Promise<{ child: ChildProcess; url: string; pid: number }> {
  const program = `
    const { startEmbeddedPostgres } = await import(${JSON.stringify(BUILT)});
    const postgres = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)} });
    process.once('SIGTERM', async () => { await postgres.stop(); process.exit(0); });
    console.log(JSON.stringify({ url: postgres.url, pid: postgres.pid }));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data', { signal: AbortSignal.timeout(40_000) })) as [Buffer];
  return { child, ...(JSON.parse(line.toString()) as { url: string; pid: number }) };
}

async function eventually(check: () => Promise<void>): Promise<void> {
  for (const deadline = Date.now() + 15_000; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}
