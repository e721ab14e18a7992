import type { Spinning } from './onnx.js';

/** Whether the engine has the box to itself or works beside others. */
export type Box = 'dedicated' | 'shared';

export interface ThreadPolicy {
  readonly threads: number;
  readonly spinning: Spinning;
}

/** Below this width one thread is faster than the hand-over between two. */
const SINGLE_THREAD_HIDDEN = 1024;
const MOST_THREADS = 4;

/**
 * Threads of one operator and how they wait. Beside a busy neighbour, idle waiting was faster than spinning, and a thread for each core faster
 * than one less; on a free box spinning inside a pass won a little: bench/results/threads-e2b-int4-128.md.
 */
export function threadPolicy(box: Box, hiddenSize: number, cores: number): ThreadPolicy {
  return { threads: hiddenSize < SINGLE_THREAD_HIDDEN ? 1 : Math.min(MOST_THREADS, cores), spinning: box === 'shared' ? 'never' : 'pass' };
}
