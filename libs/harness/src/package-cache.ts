import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bin, nanoDir, repositoryRoot } from './workspace.js';

const run = promisify(execFile);

export interface NanoPackage {
  dir: string;
  versionId: string;
  slices: { id: string; name: string; quality?: { value: number; samples: number; stderr: number } }[];
}

/** Imports nano through the command line that users have, once for the same weights, program and options; later calls find it in `.data/packages`. */
export async function nanoPackage(precision: 'int8' | 'int4' | 'fp32' = 'int8', block = 64): Promise<NanoPackage> {
  const key = await fingerprint([precision, String(block)]);
  const dir = join(repositoryRoot, '.data/packages', `nano-${precision}-${block}-${key}`);
  if (!existsSync(join(dir, 'manifest.json'))) {
    await mkdir(join(repositoryRoot, '.data/packages'), { recursive: true });
    // Specs that run side by side may all find it missing: the first one whose package is complete gives it to the others.
    const fresh = `${dir}-${randomUUID()}`;
    const args = [
      bin.cli,
      'model',
      'import',
      nanoDir,
      '--out',
      fresh,
      '--name',
      'nano',
      '--precision',
      precision,
      '--slices',
      join(nanoDir, 'slices.json'),
    ];
    if (precision !== 'fp32') args.push('--block', String(block));
    await run(process.execPath, args, { timeout: 120_000, maxBuffer: 1 << 26 });
    await rename(fresh, dir).catch(async (error: unknown) => {
      await rm(fresh, { recursive: true, force: true });
      if (!existsSync(join(dir, 'manifest.json'))) throw error;
    });
  }
  const manifest = await readFile(join(dir, 'manifest.json'));
  const { slices } = JSON.parse(manifest.toString()) as Pick<NanoPackage, 'slices'>;
  return { dir, versionId: createHash('sha256').update(manifest).digest('hex'), slices };
}

/** Publishes a package through the command line, as an operator does. */
export async function publish(packageDir: string, server: string, apiKeyFile: string): Promise<void> {
  await run(process.execPath, [bin.cli, 'model', 'publish', packageDir, '--server', server, '--api-key-file', apiKeyFile], { timeout: 120_000 });
}

async function fingerprint(extra: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const part of extra) hash.update(part).update('\0');
  const program = join(repositoryRoot, 'libs/inference/dist');
  const files = [
    ...['config.json', 'model.safetensors', 'tokenizer.json', 'slices.json'].map((name) => join(nanoDir, name)),
    ...(await readdir(program, { recursive: true }))
      .filter((name) => name.endsWith('.js'))
      .sort()
      .map((name) => join(program, name)),
  ];
  for (const file of files) for await (const data of createReadStream(file)) hash.update(data as Buffer);
  return hash.digest('hex').slice(0, 12);
}
