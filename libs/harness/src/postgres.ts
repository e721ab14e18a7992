import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ManagedProcess, removeFile } from './process.js';
import { repositoryRoot } from './workspace.js';

const EMBEDDED = pathToFileURL(join(repositoryRoot, 'apps/control-plane/dist/database/embedded-postgres.js')).href;

/** Runs the PostgreSQL that the control plane would run by itself, and starts it again when it is gone. */
const KEEPER = `
import { rename, writeFile } from 'node:fs/promises';
const [embedded, dataDir, ready] = process.argv.slice(2);
const { startEmbeddedPostgres } = await import(embedded);
const postgres = await startEmbeddedPostgres({ dataDir, log: console.log, onLost: (error) => { console.error(error); process.exit(1); } });
process.once('SIGTERM', () => void postgres.stop().then(() => process.exit(0)));
await writeFile(ready + '.new', JSON.stringify({ url: postgres.url, directory: postgres.directory }));
await rename(ready + '.new', ready);
setInterval(() => {}, 60_000);
`;

/** A PostgreSQL for several replicas, in processes of its own. */
export class PostgresProcess {
  private constructor(
    private readonly keeper: ManagedProcess,
    readonly url: string,
    private readonly directory: string,
  ) {}

  static async start(dir: string): Promise<PostgresProcess> {
    await mkdir(dir, { recursive: true, mode: 0o711 });
    const [script, ready] = [join(dir, 'keeper.mjs'), join(dir, 'ready.json')];
    await writeFile(script, KEEPER);
    await removeFile(ready);
    const keeper = ManagedProcess.start('postgres', script, [EMBEDDED, dir, ready], { logFile: join(dir, 'keeper.log') });
    const { url, directory } = await keeper.ready<{ url: string; directory: string }>(ready, 90_000);
    return new PostgresProcess(keeper, url, directory);
  }

  /** Ends the server with every session, as a failover does; it recovers and is back at the same address within seconds. */
  async crash(): Promise<void> {
    const [pid] = (await readFile(join(this.directory, 'postmaster.pid'), 'utf8')).split('\n');
    process.kill(Number(pid), 'SIGQUIT'); // Immediate shutdown: no checkpoint, recovery at the start.
  }

  stop(): Promise<{ clean: boolean }> {
    return this.keeper.stop();
  }
}
