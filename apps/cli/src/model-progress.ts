import type { ImportProgress } from '@matfleet/inference';
import { SingleBar } from 'cli-progress';
import type { Output } from './output.js';

/** A bar on a terminal, else one line a step, on stderr. */
export function showProgress(output: Output): { update: (progress: ImportProgress) => void; stop: () => void } {
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: '{step} [{bar}] {percentage} % | {value} of {total}', stream: process.stderr, hideCursor: true, clearOnComplete: true })
    : undefined;
  let step: ImportProgress['step'] | undefined;
  return {
    update: (progress) => {
      if (progress.step !== step) {
        bar?.stop();
        bar?.start(progress.total, 0, { step: progress.step });
        if (!bar) output.note(`${progress.step}: ${progress.total}`);
        step = progress.step;
      }
      bar?.update(progress.done);
    },
    stop: () => bar?.stop(),
  };
}
