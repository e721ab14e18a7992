import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nanoDir } from './workspace.js';

export interface HeldOutCommand {
  text: string;
  expected: string;
  function: string;
}

/** nano's held-out commands: none of them was trained on. */
export async function heldOutCommands(): Promise<HeldOutCommand[]> {
  const lines = (await readFile(join(nanoDir, 'eval/heldout.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => JSON.parse(line) as HeldOutCommand);
}

/** `count` commands of different functions, the same for the same seed. */
export function pickCommands(commands: readonly HeldOutCommand[], count: number, seed: number): HeldOutCommand[] {
  const rank = (command: HeldOutCommand): string => createHash('sha256').update(`${seed}:${command.text}`).digest('hex');
  const shuffled = [...commands].sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  const byFunction = new Map<string, HeldOutCommand>();
  for (const command of shuffled) if (!byFunction.has(command.function)) byFunction.set(command.function, command);
  return [...byFunction.values(), ...shuffled].slice(0, count);
}
