// Packages of random weights in a published shape, made once and kept.
import { access, mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { synthPackage } from '@matfleet/inference';

export const CACHE = join(homedir(), '.cache/matfleet/bench');

/** The folder of the package `<shape>-<precision>-<block>`. */
export async function randomPackage({ shape, precision, block, cache = CACHE }) {
  const dir = join(cache, `${shape}-${precision}-${block}`);
  const there = await access(join(dir, 'manifest.json')).then(
    () => true,
    () => false,
  );
  if (there) return dir;
  console.error(`making a random package in ${dir}, once`);
  await mkdir(cache, { recursive: true });
  await synthPackage({ shape, out: dir, precision, ...(precision !== 'fp32' && { block }) });
  return dir;
}
