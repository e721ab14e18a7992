// What a process holds, from /proc (Linux): all in bytes.
//
// private: anonymous memory, which only this process has and which cannot be dropped · file: pages of mapped files, shared between processes and evictable
// pss: each page divided by the processes that map it · peak: the most that was resident at any moment
import { readFile } from 'node:fs/promises';

export async function memoryOf(pid = 'self') {
  const [status, rollup] = await Promise.all(['status', 'smaps_rollup'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')));
  const bytes = (text, key) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return {
    rssBytes: bytes(status, 'VmRSS'),
    privateBytes: bytes(status, 'RssAnon'),
    fileBytes: bytes(status, 'RssFile') + bytes(status, 'RssShmem'),
    pssBytes: bytes(rollup, 'Pss'),
    peakRssBytes: bytes(status, 'VmHWM'),
  };
}
