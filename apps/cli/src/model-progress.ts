import type { ImportProgress } from '@matfleet/inference';
import { SingleBar } from 'cli-progress';
import { formatBytes, type Output } from './output.js';
import { durationText, progressText } from './progress-text.js';

const LINE_EVERY_S = 10;

/** A bar on a terminal, else a line when a step begins, every ten seconds, and when it ends; on stderr. `stop(true)` after success. */
export function showProgress(output: Output): { update: (progress: ImportProgress) => void; stop: (complete?: boolean) => void } {
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: '{step} [{bar}] {text}', stream: process.stderr, hideCursor: true, clearOnComplete: true })
    : undefined;
  let current: ImportProgress | undefined;
  let startedAt = 0;
  let notedAt = 0;
  const seconds = (): number => (performance.now() - startedAt) / 1000;
  const inBytes = ({ step }: ImportProgress): boolean => step !== 'golden';
  const amount = (progress: ImportProgress): string => (inBytes(progress) ? formatBytes(progress.total) : `${progress.total}`);
  const finishStep = (): void => {
    bar?.stop();
    if (!current) return;
    const speed = inBytes(current) ? `, ${Math.round(current.total / seconds() / 1e6)} MB/s` : '';
    output.note(`${current.step}: ${amount(current)} in ${durationText(seconds())}${speed}`);
  };
  return {
    update: (progress) => {
      if (progress.step !== current?.step) {
        finishStep();
        startedAt = performance.now();
        notedAt = 0;
        bar?.start(progress.total, 0, { step: progress.step, text: '' });
        if (!bar) output.note(`${progress.step}: ${amount(progress)}`);
      }
      current = progress;
      const text = progressText(progress.done, progress.total, seconds(), inBytes(progress));
      bar?.update(progress.done, { text });
      if (!bar && seconds() - notedAt >= LINE_EVERY_S) {
        output.note(`${progress.step}: ${text}`);
        notedAt = seconds();
      }
    },
    stop: (complete = false) => {
      if (complete) finishStep();
      else bar?.stop();
    },
  };
}
