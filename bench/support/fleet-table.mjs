// The committed table of `npm run bench -- fleet`.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { line, machine, today, writeTable } from './markdown.mjs';

const COLUMNS = [
  ['devices', (f) => f.devices],
  ['connects/s', (f) => f.connectsPerSecond],
  ['ms of processor per connect', (f) => f.cpuPerConnectMs],
  ['load average of the machine at rest', (f) => f.loadAverage],
  ['cores at rest', (f) => f.coresUsed],
  ['KB per device', (f) => Math.round(f.bytesPerAgent / 1_000)],
  ['beat answered, median ms', (f) => f.ackP50Ms],
  ['p99 ms', (f) => f.ackP99Ms],
  ['page of 100 by filter, p95 ms', (f) => f.listP95Ms],
  ['command, median ms', (f) => f.commandP50Ms],
  ['p99 ms', (f) => f.commandP99Ms],
  ['one update for all, s', (f) => f.updateS],
  ['95 % back after kill -9, s', (f) => f.back95S ?? '–'],
  ['all back, s', (f) => f.backAllS ?? '–'],
  ['KB of simulator per device', (f) => Math.round(f.simulatorBytesPerDevice / 1_000)],
];
const HEAD = [line(COLUMNS.map(([heading]) => heading)), line(COLUMNS.map(() => '--:'))];

export const fleetRow = (figures) => [...HEAD, row(figures)].join('\n');

const row = (figures) => line(COLUMNS.map(([, cell]) => cell(figures)));

/** One row for each number of devices; the newest run of a number replaces the one before. */
export async function addFleetRow(figures) {
  const old = await readFile(join(import.meta.dirname, '../results/fleet.md'), 'utf8').catch(() => '');
  const rows = old
    .split('\n')
    .filter((text) => /^\| +\d/.test(text) && text.split('|').length === COLUMNS.length + 2 && Number(text.split('|')[1]) !== figures.devices);
  const sorted = [...rows, row(figures)].sort((a, b) => Number(a.split('|')[1]) - Number(b.split('|')[1]));
  await writeTable(
    'fleet',
    [
      '# Fleet: one control plane, its database and the simulator on one machine',
      '',
      `${today()} · \`npm run bench -- fleet --devices N --write\` · ${machine()}`,
      '',
      ...HEAD,
      ...sorted,
    ].join('\n'),
  );
}
