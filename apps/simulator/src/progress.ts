import type { SimulatedFleet } from './simulation.js';

const EVERY_MS = 1_000;
/** Without a terminal: a line this often. */
const LINE_EVERY_MS = 10_000;

/** One line on standard error that is kept up to date; the returned function ends it. */
export function showProgress(fleet: SimulatedFleet, devices: number): () => void {
  const terminal = process.stderr.isTTY;
  let reportsBefore = 0;
  let atMs = performance.now();
  const line = (): string => {
    const { connected, converged, reports, errors } = fleet.counts();
    const perSecond = (1_000 * (reports - reportsBefore)) / Math.max(1, performance.now() - atMs);
    reportsBefore = reports;
    atMs = performance.now();
    return `${connected}/${devices} connected · ${converged} converged · ${perSecond.toFixed(0)} reports/s · ${errors} errors`;
  };
  const timer = setInterval(() => process.stderr.write(terminal ? `\r\x1b[K${line()}` : `${line()}\n`), terminal ? EVERY_MS : LINE_EVERY_MS);
  return () => {
    clearInterval(timer);
    process.stderr.write(`${terminal ? '\r\x1b[K' : ''}${line()}\n`);
  };
}
