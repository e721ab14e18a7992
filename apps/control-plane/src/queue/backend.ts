import { createPostgresBackend, createRedisBackend, withBackend, type Processor } from 'bullmq';
import { JOBS, type JobName } from './jobs.js';

export interface BackendOptions {
  databaseUrl: string;
  redisUrl: string | undefined;
  /** Separates the queues of several fleets in one Redis or PostgreSQL. */
  namespace?: string;
}

/** Connection of BullMQ: Redis when there is one, otherwise the database that is there anyway, in a schema of its own. */
export function openBackend({ databaseUrl, redisUrl, namespace = 'matfleet_queue' }: BackendOptions) {
  if (redisUrl !== undefined) {
    const { Queue, Worker } = withBackend(createRedisBackend);
    const connection = { url: redisUrl, connectTimeout: 5_000, retryStrategy: (attempt: number) => Math.min(attempt * 200, 2_000) };
    return {
      kind: 'redis' as const,
      queue: (name: JobName) => new Queue(name, { connection: { ...connection, maxRetriesPerRequest: 1 }, prefix: namespace }),
      worker: (name: JobName, processor: Processor) =>
        new Worker(name, processor, { connection: { ...connection, maxRetriesPerRequest: null }, prefix: namespace, ...workerOptions(name) }),
    };
  }
  const { Queue, Worker } = withBackend(createPostgresBackend);
  const connection = (max: number) => ({ connectionString: databaseUrl, schema: namespace, migrate: true, max, connectionTimeoutMillis: 10_000 });
  return {
    kind: 'postgres' as const,
    queue: (name: JobName) => new Queue(name, { connection: connection(3) }),
    worker: (name: JobName, processor: Processor) => new Worker(name, processor, { connection: connection(4), ...workerOptions(name) }),
  };
}

export type Backend = ReturnType<typeof openBackend>;

/** A killed process's jobs are taken up again after the lock's time, as often as it takes: our handlers are safe to repeat. */
const workerOptions = (name: JobName) => ({
  autorun: false,
  concurrency: JOBS[name].concurrency,
  lockDuration: 10_000,
  stalledInterval: 5_000,
  maxStalledCount: 1_000,
  drainDelay: 5,
});

export const jobOptions = (name: JobName, id: string) => ({
  jobId: id,
  attempts: JOBS[name].attempts,
  backoff: { type: 'exponential', delay: JOBS[name].backoffMs, jitter: 0.3 },
  // The outcome stands in our tables. A finished job that stayed would block its id from being enqueued again.
  removeOnComplete: true,
  removeOnFail: true,
});
