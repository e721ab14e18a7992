import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chunksOf, Manifest, sliceById } from '@matfleet/model';

interface Slot {
  readonly modelVersionId: string;
  readonly sliceId: string;
}

/** Reads a device's data directory as its next start would, with none of the agent's code. Answers what is wrong with the slice that it would serve. */
export function checkStore(dir: string): { readonly active: Slot | undefined; readonly wrong: readonly string[] } {
  const file = join(dir, 'journal.json');
  if (existsSync(`${file}.damaged`)) return { active: undefined, wrong: ['the journal was damaged'] };
  let active: Slot | undefined;
  try {
    ({ active } = JSON.parse(readFileSync(file, 'utf8')) as { active?: Slot });
  } catch (error) {
    return { active: undefined, wrong: [`no journal: ${(error as Error).message}`] };
  }
  if (!active) return { active, wrong: ['no slice is active'] };
  return { active, wrong: wrongBytes(dir, active) };
}

function wrongBytes(dir: string, { modelVersionId, sliceId }: Slot): string[] {
  const path = join(dir, 'models', modelVersionId, 'manifest.json');
  if (!existsSync(path)) return [`manifest ${modelVersionId} is missing`];
  const bytes = readFileSync(path);
  if (sha256(bytes) !== modelVersionId) return [`manifest ${modelVersionId} has other bytes`];
  const manifest = Manifest.parse(JSON.parse(bytes.toString()));
  return chunksOf(manifest, sliceById(manifest, sliceId)).flatMap(({ id }) => {
    const chunk = join(dir, 'chunks', id);
    if (!existsSync(chunk)) return [`chunk ${id} is missing`];
    return sha256(readFileSync(chunk)) === id ? [] : [`chunk ${id} has other bytes`];
  });
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
