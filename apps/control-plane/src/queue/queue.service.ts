import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common';
import { traced, traceParent } from '@matfleet/tracing';
import { type Job, UnrecoverableError, type Queue, type Worker } from 'bullmq';
import { DomainError } from '../errors.js';
import { Readiness } from '../health.js';
import { Metrics } from '../telemetry.js';
import { type Backend, jobOptions } from './backend.js';
import { JobCannotSucceed, JOB_NAMES, JOBS, type JobHandler, type JobName, type JobPayload } from './jobs.js';

export const BACKEND = Symbol('BACKEND');

const ENQUEUE_TIMEOUT_MS = 2_000;
/** A queue that did not answer is not asked for so long. */
const AWAY_MS = 1_000;
/** Jobs of one name that run here while the queue is away. */
const HERE_MAX = 256;
const DRAIN_MS = 4_000;
/** W3C traceparent of whoever enqueued the job, beside its payload. */
const TRACE_PARENT = 'traceParent';

/** Puts jobs on their queues and runs them. Features register one handler a job while the application starts. */
@Injectable()
export class QueueService implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly log = new Logger('queue');
  private readonly handlers = new Map<JobName, JobHandler<never>>();
  private readonly queues = new Map<JobName, Queue>();
  private readonly workers: Worker[] = [];
  private readonly stopping = new AbortController();
  private readonly here = new Map<string, Promise<void>>();
  private awayUntilMs = 0;

  constructor(
    @Inject(BACKEND) private readonly backend: Backend,
    private readonly metrics: Metrics,
    readiness: Readiness,
  ) {
    for (const name of JOB_NAMES) this.queues.set(name, this.guarded(this.backend.queue(name) as unknown as Queue, name));
    readiness.add('queue', () => this.measure());
  }

  /** Called by a feature in `onModuleInit`. */
  handle<N extends JobName>(name: N, handler: JobHandler<N>): void {
    if (this.handlers.has(name)) throw new Error(`job ${name} has two handlers`);
    this.handlers.set(name, handler as JobHandler<never>);
  }

  async onApplicationBootstrap(): Promise<void> {
    const missing = JOB_NAMES.filter((name) => !this.handlers.has(name));
    if (missing.length > 0) throw new Error(`no handler for the job${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`);
    // Waits: with PostgreSQL the first connection makes the schema. A Redis that is away holds up nothing.
    const ready = Promise.all(JOB_NAMES.map((name) => this.queue(name).waitUntilReady()));
    if (this.backend.kind === 'postgres') await ready;
    else
      await withDeadline(ready, ENQUEUE_TIMEOUT_MS, 'Redis does not answer: jobs run here until it does').catch((error: unknown) =>
        this.log.warn(error),
      );
    for (const name of JOB_NAMES) {
      const worker = this.guarded(this.backend.worker(name, (job) => this.run(name, job)) as unknown as Worker, name);
      this.workers.push(worker);
      void worker.run().catch((error: unknown) => this.log.error(error));
    }
    this.log.log(`jobs run on ${this.backend.kind}: ${JOB_NAMES.join(', ')}`);
  }

  /** Safe to repeat: a job that waits or runs already stays the only one of its id. `delayMs` holds it back. */
  async enqueue<N extends JobName>(name: N, payload: JobPayload<N>, { delayMs = 0 } = {}): Promise<void> {
    const rule = JOBS[name];
    const id = (rule.id as (payload: JobPayload<N>) => string)(payload);
    try {
      if (performance.now() < this.awayUntilMs) throw new DomainError('unavailable', `the queue (${this.backend.kind}) was away a moment ago`);
      await traced(`enqueue ${name}`, { kind: 'producer', attributes: this.attributes(name, id) }, () =>
        withDeadline(
          this.queue(name).add(
            name,
            { ...payload, [TRACE_PARENT]: traceParent() },
            { ...jobOptions(name, id), ...(delayMs > 0 && { delay: delayMs }) },
          ),
          ENQUEUE_TIMEOUT_MS,
          `the queue (${this.backend.kind}) did not take job ${name} ${id} within ${ENQUEUE_TIMEOUT_MS} ms`,
        ),
      );
    } catch (error) {
      // PostgreSQL holds what jobs are about: with that one away nothing could run here either.
      if (this.backend.kind !== 'redis' || delayMs > 0) throw error;
      if (performance.now() >= this.awayUntilMs) this.awayUntilMs = performance.now() + AWAY_MS;
      this.runHere(name, id, payload, error);
    }
  }

  /** Without Redis a job runs in this process, once; what does not end well is enqueued again by whoever sweeps. */
  private runHere<N extends JobName>(name: N, id: string, payload: JobPayload<N>, cause: unknown): void {
    const key = `${name}/${id}`;
    if (this.here.has(key)) return;
    const running = [...this.here.keys()].filter((other) => other.startsWith(`${name}/`)).length;
    if (running >= HERE_MAX)
      throw new DomainError('unavailable', `the queue is away, and ${running} jobs ${name} run without it already: come back later`, { cause });
    const run = this.attempt(name, id, payload, 1).then(
      () => {},
      () => {},
    );
    this.here.set(key, run);
    void run.finally(() => this.here.delete(key));
  }

  async onModuleDestroy(): Promise<void> {
    const closing = Promise.all([...this.workers.map((worker) => worker.close()), ...this.here.values()]);
    const late = setTimeout(() => this.stopping.abort(new Error('the control plane shuts down')), DRAIN_MS / 2);
    await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, DRAIN_MS).unref())]);
    clearTimeout(late);
    await Promise.race([
      Promise.allSettled([...this.workers.map((worker) => worker.close(true)), ...[...this.queues.values()].map((queue) => queue.close())]),
      new Promise((resolve) => setTimeout(resolve, 1_000).unref()),
    ]);
  }

  private async run(name: JobName, job: Job): Promise<void> {
    const payload = JOBS[name].payload.safeParse(job.data);
    if (!payload.success) throw new UnrecoverableError(`job ${name} ${job.id} holds what this version does not understand: ${payload.error.message}`);
    const { [TRACE_PARENT]: parent } = job.data as Record<string, unknown>;
    await this.attempt(name, job.id, payload.data as JobPayload<typeof name>, job.attemptsMade + 1, typeof parent === 'string' ? parent : undefined);
  }

  private attempt<N extends JobName>(name: N, id: string | undefined, payload: JobPayload<N>, attempt: number, parent?: string): Promise<void> {
    const attributes = { ...this.attributes(name, id), 'matfleet.job.attempt': attempt };
    return traced(`run ${name}`, { kind: 'consumer', parent, attributes }, () => this.handled(name, id, payload, attempt));
  }

  private attributes(name: JobName, id: string | undefined) {
    return { 'messaging.system': this.backend.kind, 'messaging.destination.name': name, 'messaging.message.id': id };
  }

  private async handled<N extends JobName>(name: N, id: string | undefined, payload: JobPayload<N>, attempt: number): Promise<void> {
    const rule = JOBS[name];
    const limit = AbortSignal.timeout(rule.timeoutMs);
    const signal = AbortSignal.any([limit, this.stopping.signal]);
    const endTimer = this.metrics.jobSeconds.startTimer({ job: name });
    try {
      await untilAborted(this.handlers.get(name)!(payload as never, { signal, attempt, lastAttempt: attempt >= rule.attempts }), signal);
      this.metrics.jobs.inc({ job: name, outcome: 'done' });
    } catch (error) {
      this.metrics.jobs.inc({ job: name, outcome: 'failed' });
      this.log.warn({ job: name, jobId: id, attempt, reason: error instanceof Error ? error.message : String(error), msg: 'job attempt failed' });
      if (error instanceof JobCannotSucceed) throw new UnrecoverableError(error.message);
      throw error;
    } finally {
      endTimer();
    }
  }

  private queue(name: JobName): Queue {
    return this.queues.get(name)!;
  }

  private async measure(): Promise<void> {
    for (const name of JOB_NAMES) {
      const counts = await this.queue(name).getJobCounts('waiting', 'delayed');
      this.metrics.waitingJobs.set({ job: name }, (counts['waiting'] ?? 0) + (counts['delayed'] ?? 0));
    }
  }

  /** Connection errors would otherwise crash the process; BullMQ reconnects by itself. One log line a minute. */
  private guarded<T extends Queue | Worker>(part: T, name: JobName): T {
    let quietUntil = 0;
    const onError = (error: Error): void => {
      if (this.stopping.signal.aborted || Date.now() < quietUntil) return;
      quietUntil = Date.now() + 60_000;
      this.log.warn(`queue ${name} (${this.backend.kind}): ${error.message}`);
    };
    (part as { on(event: 'error', listener: (error: Error) => void): unknown }).on('error', onError);
    return part;
  }
}

async function withDeadline<T>(promise: Promise<T>, timeoutMs: number, message: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DomainError('unavailable', message)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Ends with the work, or with the signal: a handler that ignores its signal must not hold its slot for ever. */
async function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise, reject } = withReject();
  const abort = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason)));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  await Promise.race([work, promise]).finally(() => signal.removeEventListener('abort', abort));
}

function withReject(): { promise: Promise<never>; reject: (error: Error) => void } {
  let reject!: (error: Error) => void;
  const promise = new Promise<never>((_, no) => (reject = no));
  promise.catch(() => {});
  return { promise, reject };
}
