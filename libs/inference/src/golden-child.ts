import { fork } from 'node:child_process';
import type { GoldenPrompt, Manifest } from '@matfleet/model';
import type { ImportProgress } from './engine-api.js';

export interface ToGolden {
  readonly manifest: Manifest;
  readonly storeDir: string;
}

export type FromGolden = { readonly progress: ImportProgress } | { readonly prompts: GoldenPrompt[] } | { readonly error: string };

export interface GoldenChildOptions {
  readonly onProgress: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
  /** Without news for so long the process is taken for stuck; by default 10 minutes. */
  readonly stallMs?: number;
  readonly entry?: URL;
}

const STALL_MS = 600_000;

/** Golden answers made in a process of their own, whose memory goes with it and which an abort ends at once. */
export function goldenInChild(
  { manifest, storeDir }: ToGolden,
  { onProgress, signal, stallMs = STALL_MS, entry = new URL('./golden-process.js', import.meta.url) }: GoldenChildOptions,
): Promise<GoldenPrompt[]> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const child = fork(entry, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv: [], env: {} });
    let where = 'it started';
    let outcome: FromGolden | undefined;
    let stalled = false;
    const kill = (): void => void child.kill('SIGKILL');
    const stall = setTimeout(() => {
      stalled = true;
      kill();
    }, stallMs);
    signal?.addEventListener('abort', kill, { once: true });
    child.on('message', (message: FromGolden) => {
      stall.refresh();
      if (!('progress' in message)) outcome = message;
      else {
        const { step, done, total } = message.progress;
        where =
          step === 'golden'
            ? `slice ${manifest.slices[done]?.id} answered`
            : `${Math.round(done / 1e6)} of ${Math.round(total / 1e6)} MB were packed`;
        onProgress(message.progress);
      }
    });
    // A process that could not take its task ends, and says more by that.
    child.send({ manifest, storeDir } satisfies ToGolden, () => undefined);
    child.once('error', (cause) => end(`could not be started: ${cause.message}`));
    child.once('exit', (code, by) => end(by ? `was ended by ${by}` : `ended with code ${code}`));

    // The exit comes last, so that nothing writes into the package any more.
    function end(how: string): void {
      clearTimeout(stall);
      signal?.removeEventListener('abort', kill);
      if (signal?.aborted) return reject(signal.reason);
      if (outcome && 'prompts' in outcome) return resolve(outcome.prompts);
      if (outcome && 'error' in outcome) return reject(new Error(`the golden answers failed: ${outcome.error}`));
      const why = stalled ? `made no progress for ${stallMs} ms and was killed` : how;
      reject(new Error(`the process that makes the golden answers ${why} while ${where}. An import without golden answers does not need it.`));
    }
  });
}
