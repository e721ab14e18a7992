// The committed table of `npm run bench -- fleet`.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { line, machine, today, writeTable } from './markdown.mjs';

const COLUMNS = [
  ['devices', (f) => f.devices],
  ['replicas', (f) => f.replicas],
  ['connects/s', (f) => f.connectsPerSecond],
  ['ms of processor per connect', (f) => f.cpuPerConnectMs],
  ['load average of the machine at rest', (f) => f.loadAverage],
  ['cores at rest', (f) => f.coresUsed],
  ['KB per device', (f) => Math.round(f.bytesPerAgent / 1_000)],
  ['beat answered, median ms', (f) => f.ackP50Ms],
  ['p99 ms', (f) => f.ackP99Ms],
  ['page of 100 by filter, p95 ms', (f) => f.listP95Ms],
  ['command answered, median ms', (f) => f.commandP50Ms],
  ['p99 ms', (f) => f.commandP99Ms],
  ['device reached here, p99 ms', (f) => most(f.reachHereP99Ms)],
  ['by another replica, median ms', (f) => most(f.reachPeerP50Ms)],
  ['p99 ms', (f) => most(f.reachPeerP99Ms)],
  ['one rollout to all, s', (f) => f.rolloutS],
  ['95 % back after kill -9, s', (f) => f.back95S ?? '–'],
  ['all back, s', (f) => f.backAllS ?? '–'],
  ['KB of simulator per device', (f) => Math.round(f.simulatorBytesPerDevice / 1_000)],
];
/** The upper end of a bucket. */
const most = (ms) => (ms == null ? '–' : `≤ ${ms}`);
const HEAD = [line(COLUMNS.map(([heading]) => heading)), line(COLUMNS.map(() => '--:'))];

export const fleetRow = (figures) => [...HEAD, row(figures)].join('\n');

const row = (figures) => line(COLUMNS.map(([, cell]) => cell(figures)));

const keyOf = (text) => Number(text.split('|')[2]) * 1e6 + Number(text.split('|')[1]);

/** One row for each number of devices and replicas; the newest run of the same replaces the one before. */
export async function addFleetRow(figures) {
  const old = await readFile(join(import.meta.dirname, '../results/fleet.md'), 'utf8').catch(() => '');
  const rows = old
    .split('\n')
    .filter((text) => /^\| +\d/.test(text) && text.split('|').length === COLUMNS.length + 2 && keyOf(text) !== keyOf(row(figures)));
  const sorted = [...rows, row(figures)].sort((a, b) => keyOf(a) - keyOf(b));
  await writeTable(
    'fleet',
    [
      '# Fleet: the control plane, its databases and the simulators on one machine',
      '',
      `${today()} · \`npm run bench -- fleet --devices N --replicas R --write\` · ${machine()}`,
      '',
      ...HEAD,
      ...sorted,
    ].join('\n'),
  );
}
