import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { canEnter, postgresHost, reachableRoot, type PostgresHost } from './postgres-binaries.js';

const USER = 'matfleet';
const DATABASE = 'matfleet';
/** What the service connects as: no superuser, so that row-level security holds for it. */
export const APPLICATION_ROLE = 'matfleet_app';
/** Taken in the maintenance database by the one control plane that may own this cluster. */
const OWNER_LOCK = 7_243_115_902n;
const LOG_BYTES_MAX = 8 * 2 ** 20;
const RESTARTS_MAX = 5;

export interface EmbeddedPostgres {
  /** Connection string of the application's database for its owner, who migrates it; with the password. */
  readonly url: string;
  /** The same for the service itself, which is neither owner nor superuser. */
  readonly applicationUrl: string;
  readonly directory: string;
  /** Process id of the server. */
  readonly pid: number;
  /** True when the server was left running by a control plane that died. */
  readonly adopted: boolean;
  /** Stops the server and waits for it; safe to call twice. */
  stop(): Promise<void>;
}

export interface EmbeddedPostgresOptions {
  dataDir: string;
  startTimeoutMs?: number;
  log?: (message: string) => void;
  /** Called when the server died and could not be brought back. */
  onLost?: (error: Error) => void;
}

/** What is remembered in `<data>/postgres.json` (0600). */
interface Cluster {
  directory: string;
  password: string;
  applicationPassword: string;
}

/** Starts the PostgreSQL that lives in `<data>/postgres`, or adopts the one that a killed control plane left running there. Only loopback, a free port, a password of its own. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { dataDir, startTimeoutMs = 60_000, log = () => {}, onLost = () => {} } = options;
  const deadline = Date.now() + startTimeoutMs;
  const host = await postgresHost();
  const cluster = await readOrMakeCluster(dataDir, host, log);

  let server = await findRunning(cluster, deadline, log);
  const adopted = server !== undefined;
  server ??= await launch(host, cluster, dataDir, deadline);
  const owner = await own(cluster, server.port, server.pid);
  await createDatabase(owner, cluster);

  let stopping: Promise<void> | undefined;
  let restarts = 0;
  const current = { ...server, owner };

  /** The owner's connection ends when the server does: that is how its death shows, whether or not it is our child. */
  const watch = (client: pg.Client): void => {
    client.once('end', () => {
      if (!stopping) void revive();
    });
  };
  const revive = async (): Promise<void> => {
    for (;;) {
      if (stopping) return;
      if (++restarts > RESTARTS_MAX) return onLost(new Error(`embedded PostgreSQL in ${cluster.directory} died ${restarts} times`));
      log(`embedded PostgreSQL (pid ${current.pid}) went away: starting it again on port ${current.port} (${restarts} of ${RESTARTS_MAX})`);
      try {
        await sleep(500);
        const found = await findRunning(cluster, Date.now() + 5_000, log);
        const next = found ?? (await launch(host, cluster, dataDir, Date.now() + 30_000, current.port));
        if (next.port !== current.port) throw new Error(`came back on port ${next.port} instead of ${current.port}`);
        Object.assign(current, next, { owner: await own(cluster, next.port, next.pid) });
        return watch(current.owner);
      } catch (error) {
        log(`embedded PostgreSQL did not come back: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  };
  watch(owner);

  return {
    url: connectionString(cluster, server.port, DATABASE),
    applicationUrl: connectionString(cluster, server.port, DATABASE, APPLICATION_ROLE),
    directory: cluster.directory,
    get pid() {
      return current.pid;
    },
    adopted,
    stop: () => (stopping ??= stopServer(cluster, current.pid, current.owner)),
  };
}

async function readOrMakeCluster(dataDir: string, host: PostgresHost, log: (message: string) => void): Promise<Cluster> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  const file = join(dataDir, 'postgres.json');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  const known = text === undefined ? undefined : (JSON.parse(text) as Omit<Cluster, 'applicationPassword'> & Partial<Cluster>);
  if (known?.applicationPassword !== undefined) return { ...known, applicationPassword: known.applicationPassword };
  // One of before there was a role for the service gets its password now.
  if (known) return remember(file, { ...known, applicationPassword: newPassword() });

  const id = randomBytes(6).toString('hex');
  let directory = join(dataDir, 'postgres');
  if (host.ids && !(await canEnter(dataDir))) {
    const root = await reachableRoot(dataDir);
    await mkdir(root, { recursive: true, mode: 0o755 });
    directory = join(root, `matfleet-postgres-${id}`);
    log(`PostgreSQL cannot run as root, and its account cannot enter ${dataDir}: the database lies in ${directory}`);
  }
  const cluster: Cluster = { directory, password: newPassword(), applicationPassword: newPassword() };
  await initialise(host, cluster, dataDir);
  // Written last: a start that was killed before this line begins afresh.
  return remember(file, cluster);
}

async function remember(file: string, cluster: Cluster): Promise<Cluster> {
  await writeFile(`${file}.new`, JSON.stringify(cluster), { mode: 0o600 });
  await rename(`${file}.new`, file);
  return cluster;
}

const newPassword = (): string => randomBytes(24).toString('base64url');

async function initialise(host: PostgresHost, cluster: Cluster, dataDir: string): Promise<void> {
  await rm(cluster.directory, { recursive: true, force: true });
  await mkdir(cluster.directory, { mode: 0o700 });
  const passwordFile = join(cluster.directory, '..', `.pw-${randomBytes(6).toString('hex')}`);
  await writeFile(passwordFile, cluster.password, { mode: 0o600 });
  if (host.ids) for (const path of [cluster.directory, passwordFile]) await chown(path, host.ids.uid, host.ids.gid);
  const args = [
    `--pgdata=${cluster.directory}`,
    `--username=${USER}`,
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--no-instructions',
  ];
  args.push('--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C');
  try {
    const child = spawn(host.initdb, args, { ...host.ids, cwd: '/', stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, LC_ALL: 'C' } });
    let complaint = '';
    child.stderr.on('data', (data: Buffer) => (complaint = (complaint + data.toString()).slice(-2_000)));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`initdb in ${cluster.directory} (for ${dataDir}) ended with ${code}: ${complaint.trim()}`);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

interface Server {
  pid: number;
  port: number;
}

/** The server that already runs on this cluster, if it answers to our password and says that this is its directory. */
async function findRunning(cluster: Cluster, deadline: number, log: (message: string) => void): Promise<Server | undefined> {
  for (;;) {
    const lines = (await readFile(join(cluster.directory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
    const pid = Number(lines[0]);
    const port = Number(lines[3]);
    if (!pid || !(await isServerOf(pid, cluster))) {
      // Of a process that is gone: PostgreSQL would compare the bare pid, which another program may have by now.
      if (pid) await rm(join(cluster.directory, 'postmaster.pid'), { force: true });
      return undefined;
    }
    if (port && (await answers(cluster, port))) {
      log(`adopting the PostgreSQL (pid ${pid}, port ${port}) that was left running in ${cluster.directory}`);
      return { pid, port };
    }
    if (Date.now() > deadline) throw new Error(`process ${pid} holds ${cluster.directory} but does not answer on port ${port}: stop it first`);
    await sleep(100); // Starting, recovering or shutting down.
  }
}

async function isServerOf(pid: number, cluster: Cluster): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => undefined);
  return commandLine === undefined ? process.platform !== 'linux' : commandLine.includes(cluster.directory);
}

async function answers(cluster: Cluster, port: number): Promise<boolean> {
  const client = new pg.Client({ connectionString: connectionString(cluster, port, 'postgres'), connectionTimeoutMillis: 2_000 });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
    return rows[0]?.data_directory === cluster.directory;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

async function launch(host: PostgresHost, cluster: Cluster, dataDir: string, deadline: number, wantedPort?: number): Promise<Server> {
  const logFile = join(dataDir, 'postgres.log');
  if (((await stat(logFile).catch(() => undefined))?.size ?? 0) > LOG_BYTES_MAX) await rename(logFile, `${logFile}.old`);
  for (;;) {
    const port = wantedPort ?? (await freePort());
    const child = await spawnServer(host, cluster, logFile, port);
    while (child.exitCode === null && child.signalCode === null) {
      if (await answers(cluster, port)) return { pid: child.pid!, port };
      if (Date.now() > deadline) {
        child.kill('SIGINT');
        throw new Error(`PostgreSQL in ${cluster.directory} did not answer on port ${port} in time: see ${logFile}`);
      }
      await sleep(50);
    }
    // Most likely the port was taken in between: choose another.
    if (Date.now() > deadline)
      throw new Error(`PostgreSQL in ${cluster.directory} ended with ${child.exitCode ?? child.signalCode} at start: see ${logFile}`);
    await sleep(200);
  }
}

/** Its own session: Ctrl-C in the terminal must not stop the database under a control plane that is still draining. */
async function spawnServer(host: PostgresHost, cluster: Cluster, logFile: string, port: number): Promise<ChildProcess> {
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '100',
    shared_buffers: '32MB',
    max_wal_size: '256MB',
    wal_level: 'minimal',
    max_wal_senders: '0',
    log_min_error_statement: 'panic', // Statements may hold prompts.
  };
  const args = ['-D', cluster.directory, '-p', String(port), ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`])];
  const output = await open(logFile, 'a', 0o600);
  try {
    const child = spawn(host.postgres, args, {
      ...host.ids,
      cwd: '/',
      detached: true,
      stdio: ['ignore', output.fd, output.fd],
      env: { ...process.env, LC_ALL: 'C' },
    });
    await once(child, 'spawn');
    child.unref();
    return child;
  } finally {
    await output.close();
  }
}

async function own(cluster: Cluster, port: number, pid: number): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: connectionString(cluster, port, 'postgres'), connectionTimeoutMillis: 5_000, keepAlive: true });
  client.on('error', () => {}); // Its 'end' follows.
  await client.connect();
  // The connection of a control plane killed a moment ago may still be closing.
  for (let attempt = 0; attempt < 50; attempt++) {
    const { rows } = await client.query<{ locked: boolean }>('SELECT pg_try_advisory_lock($1) AS locked', [OWNER_LOCK]);
    if (rows[0]?.locked) return client;
    await sleep(100);
  }
  await client.end();
  throw new Error(`another control plane uses the PostgreSQL (pid ${pid}) in ${cluster.directory}: one data directory serves one control plane`);
}

async function createDatabase(client: pg.Client, { applicationPassword }: Cluster): Promise<void> {
  const { rowCount: roles } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [APPLICATION_ROLE]);
  if (roles === 0) await client.query(`CREATE ROLE ${APPLICATION_ROLE}`);
  await client.query(
    `ALTER ROLE ${APPLICATION_ROLE} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD ${client.escapeLiteral(applicationPassword)}`,
  );
  const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [DATABASE]);
  if (rowCount === 0) await client.query(`CREATE DATABASE ${DATABASE}`);
}

async function stopServer(cluster: Cluster, pid: number, owner: pg.Client): Promise<void> {
  await owner.end().catch(() => {});
  if (!(await isServerOf(pid, cluster))) return;
  process.kill(pid, 'SIGINT'); // Fast shutdown: ends sessions, writes a checkpoint.
  for (let waitedMs = 0; waitedMs < 8_000; waitedMs += 50) {
    await sleep(50);
    const lines = (await readFile(join(cluster.directory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
    if (Number(lines[0]) !== pid) return;
  }
  process.kill(pid, 'SIGQUIT'); // Immediate: the next start recovers from the log.
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
  return address.port;
}

const connectionString = (cluster: Cluster, port: number, database: string, role: typeof USER | typeof APPLICATION_ROLE = USER): string =>
  `postgresql://${role}:${encodeURIComponent(role === USER ? cluster.password : cluster.applicationPassword)}@127.0.0.1:${port}/${database}`;
