import { SingleBar } from 'cli-progress';
import type { Output } from './output.js';
import { currentWave, progressLine, type Rollout } from './rollout-views.js';

const DONE = new Set(['succeeded', 'failed', 'skipped', 'reverted', 'revert-failed']);

/** The running wave as a bar on a terminal, else a line whenever something has changed; on stderr. */
export function showRollout(output: Output): { update: (rollout: Rollout) => void; stop: () => void } {
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: '[{bar}] {text}', stream: process.stderr, hideCursor: true, clearOnComplete: true })
    : undefined;
  let last = '';
  bar?.start(1, 0, { text: '' });
  return {
    update: (rollout) => {
      const text = progressLine(rollout);
      const wave = currentWave(rollout);
      if (bar) {
        bar.setTotal(Math.max(1, wave?.devices ?? 1));
        bar.update(wave?.counts.filter(({ state }) => DONE.has(state)).reduce((sum, { devices }) => sum + devices, 0) ?? 0, { text });
      } else if (text !== last) output.note(text);
      last = text;
    },
    stop: () => bar?.stop(),
  };
}
