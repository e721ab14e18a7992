import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Gives the run a directory of its own. The database starts in it only when a spec first asks (see database.ts). */
export default async function globalSetup() {
  const dir = await mkdtemp(join(tmpdir(), 'matfleet-test-'));
  await writeFile(join(dir, 'jest.pid'), String(process.pid));
  process.env.MATFLEET_TEST_RUN_DIR = dir;
}
