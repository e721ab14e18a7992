import { z } from 'zod';

interface JobRule<P> {
  readonly payload: z.ZodType<P>;
  /** Runs in all; a handler must be safe to run again after each of them. */
  readonly attempts: number;
  /** Before the second run; doubles from there, with jitter. */
  readonly backoffMs: number;
  /** Of one run: then its signal aborts and the run has failed. */
  readonly timeoutMs: number;
  /** Runs at the same time in one process. */
  readonly concurrency: number;
  /** Jobs of the same id are one job while it waits or runs. BullMQ takes no `:` and no bare integer. */
  readonly id: (payload: P) => string;
}

const job = <P>(rule: JobRule<P>): JobRule<P> => rule;

/** Every job there is. Start-up refuses when one of them has no handler, or two. */
export const JOBS = {
  /** Takes a rollout as far as it can go now. Carries the leader's token; the next look asks again, so it runs once. */
  'advance-rollout': job({
    payload: z.object({ rolloutId: z.string().min(1), lease: z.string().min(1), token: z.string().regex(/^\d+$/) }),
    attempts: 1,
    backoffMs: 1_000,
    timeoutMs: 5 * 60_000,
    concurrency: 4,
    id: ({ rolloutId }) => rolloutId,
  }),
  /** Answers one inference on the best device, or on a larger one after it. */
  'run-inference': job({
    payload: z.object({ inferenceId: z.string().min(1) }),
    attempts: 10,
    backoffMs: 500,
    timeoutMs: 15 * 60_000,
    concurrency: 32,
    id: ({ inferenceId }) => inferenceId,
  }),
} as const;

export type JobName = keyof typeof JOBS;
export type JobPayload<N extends JobName> = z.infer<(typeof JOBS)[N]['payload']>;
export const JOB_NAMES = Object.keys(JOBS) as JobName[];

/** One run of a job. Throws to fail it: BullMQ then tries again up to `attempts`. */
export type JobHandler<N extends JobName> = (payload: JobPayload<N>, run: JobRun) => Promise<void>;

export interface JobRun {
  /** Aborts at the job's time limit, and when this process shuts down. */
  readonly signal: AbortSignal;
  /** From 1. */
  readonly attempt: number;
  readonly lastAttempt: boolean;
}

/** Thrown by a handler when no later run can succeed. */
export class JobCannotSucceed extends Error {}
