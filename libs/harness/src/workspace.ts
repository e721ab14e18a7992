import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root: the nearest directory above this file that holds nx.json. */
export const repositoryRoot: string = (() => {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'nx.json'))) {
    if (dirname(dir) === dir) throw new Error(`no nx.json above ${fileURLToPath(import.meta.url)}`);
    dir = dirname(dir);
  }
  return dir;
})();

export const nanoDir = join(repositoryRoot, 'models/nano');
export const bin = {
  controlPlane: join(repositoryRoot, 'apps/control-plane/bin/matfleet-control-plane.mjs'),
  agent: join(repositoryRoot, 'apps/agent/bin/matfleet-agent.mjs'),
  simulator: join(repositoryRoot, 'apps/simulator/bin/matfleet-sim.mjs'),
  cli: join(repositoryRoot, 'apps/cli/bin/matfleet.mjs'),
};

/**
 * A new directory for one run. Its path is short, because a Unix socket's path may hold about 100 bytes; it may be entered by all, because the embedded
 * PostgreSQL of a control plane run as root has an account of its own and would otherwise keep its data elsewhere, where nothing removes it.
 */
export async function makeRunDir(name: string): Promise<{ dir: string; remove(): Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), `mf-${name}-`));
  await chmod(dir, 0o711);
  return { dir, remove: () => rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }) };
}
