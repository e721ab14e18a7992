import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
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
export const nanoPackage = (precision: 'int8' | 'int4' | 'fp32' = 'int8', block = 64): Promise<NanoPackage> =>
  cached(`nano-${precision}-${block}`, precision, block, () => Promise.resolve(nanoDir));

/** A package that is whole, signed and proud of its golden answers, and whose weights are scrambled: what it says is nonsense. */
export const damagedNanoPackage = (): Promise<NanoPackage> => cached('nano-scrambled', 'int8', 64, scrambledNano);

async function cached(name: string, precision: 'int8' | 'int4' | 'fp32', block: number, checkpoint: () => Promise<string>): Promise<NanoPackage> {
  const key = await fingerprint([name, precision, String(block)]);
  const dir = join(repositoryRoot, '.data/packages', `${name}-${key}`);
  if (!existsSync(join(dir, 'manifest.json'))) {
    await mkdir(join(repositoryRoot, '.data/packages'), { recursive: true });
    // Specs that run side by side may all find it missing: the first one whose package is complete gives it to the others.
    const fresh = `${dir}-${randomUUID()}`;
    const source = await checkpoint();
    const args = [
      bin.cli,
      'model',
      'import',
      source,
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
    if (source !== nanoDir) await rm(source, { recursive: true, force: true });
    await rename(fresh, dir).catch(async (error: unknown) => {
      await rm(fresh, { recursive: true, force: true });
      if (!existsSync(join(dir, 'manifest.json'))) throw error;
    });
  }
  const manifest = await readFile(join(dir, 'manifest.json'));
  const { slices } = JSON.parse(manifest.toString()) as Pick<NanoPackage, 'slices'>;
  return { dir, versionId: createHash('sha256').update(manifest).digest('hex'), slices };
}

/** The checkpoint with what attention gives out of every layer, and its FFN, in reversed order. */
async function scrambledNano(): Promise<string> {
  const dir = await mkdtemp(join(repositoryRoot, '.data/packages', 'scrambled-'));
  await cp(nanoDir, dir, { recursive: true });
  const file = join(dir, 'model.safetensors');
  const bytes = await readFile(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, { data_offsets?: [number, number] }>;
  for (const [name, { data_offsets: [from, to] = [0, 0] }] of Object.entries(header))
    if (/(o_proj|down_proj)\.weight$/.test(name))
      bytes
        .subarray(8 + headerBytes + from, 8 + headerBytes + to)
        .reverse()
        .swap16();
  await writeFile(file, bytes);
  return dir;
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
