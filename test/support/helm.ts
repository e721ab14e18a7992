import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe } from '@jest/globals';
import { unzipSync } from 'fflate';

const require = createRequire(import.meta.url);
const root = new URL('../..', import.meta.url).pathname;

/** Where the helm lies that a package carries for Linux on x64, the only helm that a registry of packages gives; undefined elsewhere. */
const archive =
  process.platform === 'linux' && process.arch === 'x64' ? join(dirname(require.resolve('@aws-cdk/asset-kubectl-v20')), 'layer.zip') : undefined;

/** `describe` where there is a helm; elsewhere the specs inside are skipped, named and counted at the end of the run. */
export const describeWithHelm = archive || process.env['HELM'] ? describe : describe.skip;

/** `$HELM`, or the one of the package, unpacked once. */
function helmPath(): string {
  if (process.env['HELM']) return process.env['HELM'];
  const path = join(root, 'node_modules/.cache/matfleet/helm');
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  const helm = unzipSync(readFileSync(archive!), { filter: ({ name }) => name === 'helm/helm' })['helm/helm']!;
  const mine = `${path}.${process.pid}`;
  writeFileSync(mine, helm);
  chmodSync(mine, 0o755);
  renameSync(mine, path);
  return path;
}

/** Runs helm to its end. */
export function helm(...args: string[]): { readonly ok: boolean; readonly stdout: string; readonly stderr: string } {
  const { status, stdout, stderr } = spawnSync(helmPath(), args, {
    encoding: 'utf8',
    timeout: 30_000,
    env: { PATH: process.env['PATH'], HOME: '/nonexistent' },
  });
  return { ok: status === 0, stdout, stderr };
}
