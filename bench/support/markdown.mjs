// How results are written down.
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';

export const line = (cells) => `| ${cells.join(' | ')} |`;
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
export const megabytes = (bytes) => (bytes / 1e6).toFixed(2);
export const today = () => new Date().toISOString().slice(0, 10);
export const machine = () => `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Node ${process.versions.node}`;

/** `columns` as [heading, 'left' or 'right']. */
export function table(columns, rows) {
  return [line(columns.map(([heading]) => heading)), line(columns.map(([, side]) => (side === 'left' ? '---' : '--:'))), ...rows.map(line)].join(
    '\n',
  );
}

export async function writeTable(name, text) {
  const folder = join(import.meta.dirname, '../results');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${name}.md`), `${text}\n`);
}
