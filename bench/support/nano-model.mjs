// The committed model and its commands, as the benchmarks of answers use them.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { importCheckpoint } from '@matfleet/inference';

const ROOT = resolve(import.meta.dirname, '../..');
export const NANO = join(ROOT, 'models/nano');
/** Prompt and answer of every command fit; a small context keeps the K/V column honest for the job. */
export const CONTEXT_TOKENS = 128;
/** More than any answer, so that a wrong one ends, too. */
export const MAX_TOKENS = 64;

export const readSlices = async (model) => JSON.parse(await readFile(join(model, 'slices.json'), 'utf8'));

/** The slices named in `text`, a list with commas; all of them without. */
export function chosenSlices(slices, text) {
  if (!text) return slices;
  return text.split(',').map((id) => {
    const slice = slices.find((one) => one.id === id);
    if (!slice) throw new Error(`there is no slice ${id}, but ${slices.map((one) => one.id).join(', ')}`);
    return slice;
  });
}

/** `name` is heldout or handwritten; `limit` takes about that many. */
export async function readExamples(model, name, limit) {
  const path = join(model, 'eval', `${name}.jsonl`);
  const bytes = await readFile(path);
  const all = bytes
    .toString()
    .split('\n')
    .filter(Boolean)
    .map((text) => JSON.parse(text));
  // Every n-th, so that a short run still sees every function.
  const step = limit ? Math.max(1, Math.ceil(all.length / Number(limit))) : 1;
  return { file: relative(ROOT, path), sha256: createHash('sha256').update(bytes).digest('hex'), examples: all.filter((_, i) => i % step === 0) };
}

/** Imports the checkpoint into a temporary package and removes that after `use({ manifest, dir })`. */
export async function withPackage({ model, precision, block, slices }, use) {
  const work = await mkdtemp(join(tmpdir(), 'matfleet-bench-'));
  try {
    const dir = join(work, 'package');
    const manifest = await importCheckpoint({
      source: model,
      out: dir,
      name: 'nano',
      precision,
      ...(block && { block: Number(block) }),
      slices: slices.map(({ id, name, ffn, skip }) => ({ id, name, ffn, skip })),
    });
    return await use({ manifest, dir });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
