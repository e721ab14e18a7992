import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isAbandoned, markIn, ownerMark } from './owner.js';

/**
 * Makes the folder `out`, complete or not at all: `work` fills a folder beside it, which takes the name at the end. On any error, Ctrl-C
 * included, it is removed; what a killed process left is removed by the next one that makes the same `out`.
 */
export async function makeDir<T>(out: string, work: (partial: string) => Promise<T>): Promise<T> {
  const path = resolve(out);
  await assertNew(path);
  await sweep(path);
  const partial = `${path}.partial-${ownerMark()}-${randomUUID().slice(0, 8)}`;
  try {
    await mkdir(partial, { recursive: true });
    const result = await work(partial);
    await assertNew(path);
    await rename(partial, path);
    await syncDir(dirname(path));
    return result;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

export async function assertNew(path: string): Promise<void> {
  const exists = await stat(path).then(
    () => true,
    () => false,
  );
  if (exists) throw new Error(`${resolve(path)} already exists`);
}

/** Removes unfinished folders of processes that ended. */
async function sweep(path: string): Promise<void> {
  const prefix = `${basename(path)}.partial-`;
  for (const name of await readdir(dirname(path)).catch(() => [])) {
    const mark = name.startsWith(prefix) ? markIn(name) : undefined;
    if (mark === undefined || name !== `${prefix}${mark}${name.slice(-9)}`) continue;
    const folder = join(dirname(path), name);
    if (await isAbandoned(folder, mark)) await rm(folder, { recursive: true, force: true });
  }
}

async function syncDir(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
