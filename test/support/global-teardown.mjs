import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Stops the database process, if a spec started one, and removes the run's directory. */
export default async function globalTeardown() {
  const dir = process.env.MATFLEET_TEST_RUN_DIR;
  if (!dir) return;
  const ready = await readFile(join(dir, 'postgres-ready.json'), 'utf8').catch(() => undefined);
  if (ready) {
    const { pid } = JSON.parse(ready);
    const alive = () => {
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    };
    if (alive()) process.kill(pid, 'SIGTERM');
    for (let waitedMs = 0; waitedMs < 15_000 && alive(); waitedMs += 50) await sleep(50);
  }
  await rm(dir, { recursive: true, force: true });
}
