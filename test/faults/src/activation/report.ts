import { cpus, release } from 'node:os';
import { makeRunDir } from '@matfleet/harness';
import { runKills, type KillReport } from './kills.js';
import { runPowerLoss, type PowerLossReport } from './power-loss.js';

export interface ActivationReport {
  readonly ok: boolean;
  readonly kills: KillReport;
  readonly powerLoss: PowerLossReport;
}

export interface ActivationOptions {
  readonly activations: number;
  /** That share the activations. */
  readonly devices: number;
  /** Of killing, at most. */
  readonly minutes: number;
  readonly boots: number;
  readonly seed: number;
  readonly onProgress: (what: string) => void;
}

/** Below, a sample: fewer slices, fewer activations whose every operation is followed by a power cut. */
const WHOLE = 100;

export async function runActivation({ activations, devices, minutes, boots, seed, onProgress }: ActivationOptions): Promise<ActivationReport> {
  const inDir = async <T>(name: string, run: (dir: string) => Promise<T>): Promise<T> => {
    const { dir, remove } = await makeRunDir(name);
    try {
      return await run(dir);
    } finally {
      await remove();
    }
  };
  const few = activations < WHOLE;
  const share = (device: number): number => Math.floor(((device + 1) * activations) / devices) - Math.floor((device * activations) / devices);
  const kills = together(
    await Promise.all(
      Array.from({ length: devices }, (_, device) =>
        inDir('kills', (dir) => runKills(dir, { activations: share(device), seed: seed + device, few, minutes, onProgress })),
      ),
    ),
  );
  const powerLoss = await inDir('power', (dir) => runPowerLoss(dir, { activations: few ? 3 : 8, boots, seed, few, onProgress }));
  const broken = [kills.withoutRunnableSlice, kills.wrongAnswers, kills.wrongBytes, powerLoss.withoutRunnableSlice, powerLoss.wrongBytes];
  return { ok: kills.convergedAtTheEnd && [...broken, powerLoss.wrongAnswers].every((count) => count === 0), kills, powerLoss };
}

function together(reports: readonly KillReport[]): KillReport {
  const sum = (of: (report: KillReport) => number): number => reports.reduce((total, report) => total + of(report), 0);
  const points = [...new Set(reports.flatMap(({ killedAt }) => Object.keys(killedAt)))];
  return {
    activations: sum((report) => report.activations),
    killedAt: Object.fromEntries(points.map((point) => [point, sum(({ killedAt }) => killedAt[point] ?? 0)])),
    killedBetween: sum((report) => report.killedBetween),
    completed: sum((report) => report.completed),
    withoutRunnableSlice: sum((report) => report.withoutRunnableSlice),
    wrongAnswers: sum((report) => report.wrongAnswers),
    wrongBytes: sum((report) => report.wrongBytes),
    convergedAtTheEnd: reports.every((report) => report.convergedAtTheEnd),
    problems: reports.flatMap((report) => report.problems),
    seconds: Math.max(...reports.map((report) => report.seconds)),
  };
}

/** For bench/results. */
export function activationTable({ kills, powerLoss }: ActivationReport): string {
  const points = Object.entries(kills.killedAt).sort(([a], [b]) => (a < b ? -1 : 1));
  const inPoints = points.reduce((sum, [, count]) => sum + count, 0);
  return `# Activations under kill -9 and power loss

\`npm run test:faults -- activation\` (${kills.activations} of its activations), ${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'}), Linux ${release()}, Node.js ${process.version}. A real agent with nano; it serves, and is
asked, after every death.

## Kill -9: ${kills.activations} activations in ${kills.seconds} s

| what | count |
| --- | ---: |
| died before an operation on its own disk, each in turn | ${inPoints} at ${points.length} points |
| died at a random moment, from outside | ${kills.killedBetween} |
| was through before the moment came | ${kills.completed} |
| **without a runnable slice afterwards** | **${kills.withoutRunnableSlice}** |
| **answers that were not exactly those of a committed slice** | **${kills.wrongAnswers}** |
| **wrong or missing bytes of the active slice** | **${kills.wrongBytes}** |
| the last, undisturbed activation became active | ${kills.convergedAtTheEnd ? 'yes' : 'no'} |

## Power loss: ${powerLoss.cuts} cuts

Everything that the agent did to its disk in ${powerLoss.activations} activations, ${powerLoss.operations} operations with ${powerLoss.flushes} flushes, was written down. The power is cut after each of them, on a
disk that keeps a file's content from its fsync on and a name from its directory's on, and of the rest nothing, the names alone, or any part.

| what | count |
| --- | ---: |
| different disks that the cuts leave | ${powerLoss.states} |
| of these, started on with a real agent and asked | ${powerLoss.booted} |
| **without a runnable slice** | **${powerLoss.withoutRunnableSlice}** |
| **wrong or missing bytes of the active slice** | **${powerLoss.wrongBytes}** |
| **wrong answers** | **${powerLoss.wrongAnswers}** |

## Where it died

| step of the trial, and operation | times |
| --- | ---: |
${points.map(([point, count]) => `| ${point} | ${count} |`).join('\n')}
`;
}
