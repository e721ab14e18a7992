// What of some files the page cache holds (Linux, with dd and fincore).
import { execFileSync } from 'node:child_process';

export const cachedBytes = (files) =>
  execFileSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', ...files], { encoding: 'utf8', maxBuffer: 2 ** 24 })
    .trim()
    .split(/\s+/)
    .reduce((sum, n) => sum + Number(n), 0);

/** Asks the kernel to forget these files; pages that a process has mapped stay. */
export function dropFromPageCache(files) {
  for (const file of files) execFileSync('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
}
