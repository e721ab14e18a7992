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
 * Threads of one operator and how they wait. Beside a neighbour a spinning thread spends its turns waiting for one that was put aside; idle
 * threads were faster there and cost little on a free box, and so did a thread for each core against one less: bench/results/threads-*.md.
 */
export function threadPolicy(box: Box, hiddenSize: number, cores: number): ThreadPolicy {
  return { threads: hiddenSize < SINGLE_THREAD_HIDDEN ? 1 : Math.min(MOST_THREADS, cores), spinning: box === 'shared' ? 'never' : 'pass' };
}
