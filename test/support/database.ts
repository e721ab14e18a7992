import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

const START_TIMEOUT_MS = 60_000;

export interface TestDatabase {
  /** Connection string of an empty database of one's own. */
  url: string;
  /** Of the server, for its superuser. */
  serverUrl: string;
  /** Ends every connection to it, and removes it. */
  drop(): Promise<void>;
}

/** Owns the databases of specs. No superuser, so that row-level security holds in every one of them. */
const OWNER = 'spec_owner';

/** A fresh, empty database on the run's real PostgreSQL. */
export async function createDatabase(): Promise<TestDatabase> {
  const server = await postgresUrl();
  const name = `spec_${randomBytes(6).toString('hex')}`;
  // Specs of several processes may come first at once.
  await execute(
    server,
    `DO $$ BEGIN CREATE ROLE ${OWNER} LOGIN PASSWORD '${OWNER}'; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`,
  );
  await execute(server, `CREATE DATABASE ${name} OWNER ${OWNER}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  url.username = url.password = OWNER;
  return { url: url.href, serverUrl: server, drop: () => execute(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) };
}

/** The run's PostgreSQL. Specs run in several processes: the one that makes the lock directory first starts it, all wait for the same file. */
async function postgresUrl(): Promise<string> {
  const dir = process.env['MATFLEET_TEST_RUN_DIR'];
  if (!dir) throw new Error('MATFLEET_TEST_RUN_DIR is not set: run this spec through Jest, whose global setup makes it');
  const isFirst = await mkdir(join(dir, 'postgres-lock')).then(
    () => true,
    () => false,
  );
  if (isFirst)
    spawn(process.execPath, [fileURLToPath(new URL('postgres-process.mjs', import.meta.url)), dir], { detached: true, stdio: 'ignore' }).unref();
  for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline; await sleep(50)) {
    const text = await readFile(join(dir, 'postgres-ready.json'), 'utf8').catch(() => undefined);
    if (!text) continue;
    const { url, error } = JSON.parse(text) as { url?: string; error?: string };
    if (url) return url;
    throw new Error(`PostgreSQL for the tests did not start: ${error}`);
  }
  throw new Error(`PostgreSQL for the tests did not start within ${START_TIMEOUT_MS} ms: is the control plane built (npm run build)?`);
}

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  await client.query(sql).finally(() => client.end());
}
