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

/** What a process has read by calls (maps are not in it) and waited for since its start, and what it has mapped now. */
export async function trafficOf(pid = 'self') {
  const [io, stat, { rssBytes }] = await Promise.all([readFile(`/proc/${pid}/io`, 'utf8'), readFile(`/proc/${pid}/stat`, 'utf8'), memoryOf(pid)]);
  // Fields after the command's name, which may hold anything: 3 is the state, 12 major faults, 23 the size of the address space.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    fileBytesRead: Number(/^rchar: (\d+)$/m.exec(io)[1]),
    majorFaults: Number(fields[12 - 3]),
    addressBytes: Number(fields[23 - 3]),
    rssBytes,
  };
}
