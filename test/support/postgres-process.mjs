// The one PostgreSQL of a Jest run: started by the first spec that asks, ended by the teardown, or by itself when Jest has died.
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../../apps/control-plane/dist/database/embedded-postgres.js';

const [dir] = process.argv.slice(2);
const jestPid = Number(await readFile(join(dir, 'jest.pid'), 'utf8'));
const file = join(dir, 'postgres-ready.json');

try {
  const postgres = await startEmbeddedPostgres({ dataDir: join(dir, 'postgres-data') });
  const stop = async () => {
    await postgres.stop();
    await rm(postgres.directory, { recursive: true, force: true });
    process.exit(0);
  };
  process.once('SIGTERM', () => void stop());
  process.once('SIGINT', () => void stop());
  await publish({ url: postgres.url, pid: process.pid });
  setInterval(() => {
    try {
      process.kill(jestPid, 0);
    } catch {
      void stop();
    }
  }, 2_000);
} catch (error) {
  await publish({ error: error instanceof Error ? error.message : String(error), pid: process.pid });
  process.exit(1);
}

async function publish(content) {
  await writeFile(`${file}.new`, JSON.stringify(content));
  await rename(`${file}.new`, file);
}
