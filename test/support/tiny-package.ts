import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const root = resolve(import.meta.dirname, '../..');
const fixtures = join(root, 'libs/inference/fixtures');

export interface TinyPackage {
  /** Holds `manifest.json` and `chunks/`. */
  readonly dir: string;
  readonly manifestPath: string;
  readonly remove: () => Promise<void>;
}

/**
 * A package of random weights with a tokenizer of 300 ids, slices `full` and `narrow`, and a context of up to 256 tokens. Its answers never stop by
 * themselves, so that a spec can count on their length. Made by the built command line.
 */
export async function tinyPackage(): Promise<TinyPackage> {
  const work = await mkdtemp(join(tmpdir(), 'matfleet-tiny-'));
  const checkpoint = join(work, 'checkpoint');
  await mkdir(checkpoint);
  for (const file of ['config.json', 'model.safetensors']) await copyFile(join(fixtures, 'tiny-gemma3n', file), join(checkpoint, file));
  await writeFile(join(checkpoint, 'tokenizer.json'), JSON.stringify(await smallTokenizer(300)));
  const slices = [
    { id: 'full', name: 'Full', ffn: Array<number>(20).fill(64), skip: [] },
    { id: 'narrow', name: 'Narrow', ffn: Array<number>(20).fill(32), skip: [] },
  ];
  await writeFile(join(work, 'slices.json'), JSON.stringify({ slices }));
  const dir = join(work, 'package');
  const args = ['model', 'import', checkpoint, '--out', dir, '--precision', 'fp32', '--slices', join(work, 'slices.json'), '--name', 'tiny'];
  await promisify(execFile)(process.execPath, [join(root, 'apps/cli/bin/matfleet.mjs'), ...args], { timeout: 60_000 });
  const manifestPath = join(dir, 'manifest.json');
  const manifest = JSON.parse(await readFile(manifestPath, 'utf8')) as { config: { eosTokenIds: number[] } };
  manifest.config.eosTokenIds = [];
  await writeFile(manifestPath, JSON.stringify(manifest));
  return { dir, manifestPath, remove: () => rm(work, { recursive: true, force: true }) };
}

/** The fixture's tokenizer with its first `size` ids and the merges that stay within them. */
async function smallTokenizer(size: number): Promise<unknown> {
  const tokenizer = JSON.parse(await readFile(join(fixtures, 'tokenizer/small-tokenizer.json'), 'utf8')) as {
    model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
  };
  const vocab = Object.fromEntries(Object.entries(tokenizer.model.vocab).filter(([, id]) => id < size));
  const merges = tokenizer.model.merges.filter((merge) => {
    const [left, right] = typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge;
    return left in vocab && right in vocab && left + right in vocab;
  });
  return { ...tokenizer, model: { ...tokenizer.model, vocab, merges } };
}
