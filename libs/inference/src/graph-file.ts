import { randomUUID } from 'node:crypto';
import { readdir, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSession, type Session, type SessionOptions } from './onnx.js';
import { isAbandoned, markIn, ownerMark } from './owner.js';

const PREFIX = '.graph-';

/** Loads a graph whose external data lies in the store: found relative to the graph's own folder, so the graph lies there while it loads. */
export async function loadBeside(storeDir: string, graph: Uint8Array, options: SessionOptions): Promise<Session> {
  const path = join(storeDir, `${PREFIX}${ownerMark()}-${randomUUID().slice(0, 8)}.onnx`);
  try {
    await writeFile(path, graph);
    return await createSession(path, options);
  } finally {
    await unlink(path).catch(() => undefined);
  }
}

/** Removes the graphs of processes that were killed while they loaded one. */
export async function sweepGraphs(storeDir: string): Promise<void> {
  for (const name of await readdir(storeDir)) {
    const mark = name.startsWith(PREFIX) ? markIn(name) : undefined;
    if (mark !== undefined && (await isAbandoned(join(storeDir, name), mark))) await unlink(join(storeDir, name)).catch(() => undefined);
  }
}
