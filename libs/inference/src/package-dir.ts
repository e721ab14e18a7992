import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Manifest } from '@matfleet/model';
import { z } from 'zod';

/** Reads and checks `<dir>/manifest.json`. */
export async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, 'manifest.json');
  const bytes = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new Error(`${dir} is no model package: it has no manifest.json`, { cause });
  });
  let json: unknown;
  try {
    json = JSON.parse(bytes);
  } catch (cause) {
    throw new Error(`${path} is not valid JSON`, { cause });
  }
  const parsed = Manifest.safeParse(json);
  if (!parsed.success) throw new Error(`${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}
