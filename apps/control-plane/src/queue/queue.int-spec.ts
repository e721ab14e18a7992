import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { describeWithRedis, startRedis, type RedisServer } from '../../../../test/support/needs.js';
import { PrismaService } from '../database/prisma.service.js';
import { Endpoints } from '../endpoints.js';
import { Readiness } from '../health.js';
import { Metrics } from '../telemetry.js';
import { openBackend } from './backend.js';
import { JobCannotSucceed, type JobRun } from './jobs.js';
import { QueueService } from './queue.service.js';

const newQueue = (connection: { databaseUrl: string; redisUrl: string | undefined }): QueueService =>
  new QueueService(openBackend(connection), new Metrics(), new Readiness(new PrismaService(connection.databaseUrl), new Endpoints()));

/** A queue as the application builds it, without the rest of the application. */
async function openQueue(connection: { databaseUrl: string; redisUrl: string | undefined }) {
  const runs: { id: string; run: JobRun }[] = [];
  const work = new Map<string, (run: JobRun) => Promise<void>>();
  const queue = newQueue(connection);
  queue.handle('advance-rollout', () => Promise.resolve());
  queue.handle('run-inference', async ({ inferenceId }, run) => {
    runs.push({ id: inferenceId, run });
    await work.get(inferenceId)?.(run);
  });
  await queue.onApplicationBootstrap();
  return { queue, work, runsOf: (id: string) => runs.filter((entry) => entry.id === id).map(({ run }) => run) };
}

async function eventually(check: () => void, timeoutMs = 20_000): Promise<void> {
  for (const deadline = Date.now() + timeoutMs; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    try {
      return check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}

const suite = (connect: () => { databaseUrl: string; redisUrl: string | undefined }): void => {
  let open: Awaited<ReturnType<typeof openQueue>>;
  beforeAll(async () => {
    open = await openQueue(connect());
  });
  afterAll(() => open.queue.onModuleDestroy());

  it('runs a job once though it was enqueued five times, and again when it is enqueued after its end', async () => {
    const id = randomUUID();
    let finish!: () => void;
    open.work.set(id, () => new Promise((resolve) => (finish = resolve)));
    for (let i = 0; i < 5; i++) await open.queue.enqueue('run-inference', { inferenceId: id });
    await eventually(() => expect(open.runsOf(id)).toHaveLength(1));
    await open.queue.enqueue('run-inference', { inferenceId: id });
    finish();
    open.work.delete(id);
    // Its id is free once BullMQ has noted its end, a moment after the handler's.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(open.runsOf(id)).toHaveLength(1);
    await open.queue.enqueue('run-inference', { inferenceId: id });
    await eventually(() => expect(open.runsOf(id)).toHaveLength(2));
  });

  it('tries a failed job again with a higher attempt, until it succeeds', async () => {
    const id = randomUUID();
    open.work.set(id, async ({ attempt }) => {
      if (attempt < 3) throw new Error(`attempt ${attempt} fails`);
    });
    await open.queue.enqueue('run-inference', { inferenceId: id });
    await eventually(() => expect(open.runsOf(id).map((run) => run.attempt)).toEqual([1, 2, 3]));
  });

  it('does not try again what cannot succeed', async () => {
    const id = randomUUID();
    open.work.set(id, async () => {
      throw new JobCannotSucceed('the inference is gone');
    });
    await open.queue.enqueue('run-inference', { inferenceId: id });
    await eventually(() => expect(open.runsOf(id)).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(open.runsOf(id)).toHaveLength(1);
  });

  it('holds a job back for its delay', async () => {
    const id = randomUUID();
    const startMs = Date.now();
    await open.queue.enqueue('run-inference', { inferenceId: id }, { delayMs: 700 });
    await eventually(() => expect(open.runsOf(id)).toHaveLength(1));
    expect(Date.now() - startMs).toBeGreaterThanOrEqual(690);
  });
};

describe('the queue on PostgreSQL', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase();
  });
  afterAll(() => database.drop());

  describe('as it is', () => suite(() => ({ databaseUrl: database.url, redisUrl: undefined })));

  it('runs after a restart what was enqueued and not yet run', async () => {
    const id = randomUUID();
    const first = await openQueue({ databaseUrl: database.url, redisUrl: undefined });
    await first.queue.enqueue('run-inference', { inferenceId: id }, { delayMs: 1_500 });
    await first.queue.onModuleDestroy();
    const second = await openQueue({ databaseUrl: database.url, redisUrl: undefined });
    await eventually(() => expect(second.runsOf(id)).toHaveLength(1));
    await second.queue.onModuleDestroy();
    expect(first.runsOf(id)).toHaveLength(0);
  });
});

describeWithRedis('the queue on Redis', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.stop());

  describe('as it is', () => suite(() => ({ databaseUrl: 'postgresql://unused', redisUrl: redis.url })));

  it('runs a job here while Redis is down, once, and goes on by itself when Redis is back', async () => {
    const open = await openQueue({ databaseUrl: 'postgresql://unused', redisUrl: redis.url });
    const [before, during, after] = [randomUUID(), randomUUID(), randomUUID()];
    await open.queue.enqueue('run-inference', { inferenceId: before });
    await eventually(() => expect(open.runsOf(before)).toHaveLength(1));
    await redis.kill();
    const startMs = Date.now();
    let finish!: () => void;
    open.work.set(during, () => new Promise((resolve) => (finish = resolve)));
    for (let i = 0; i < 3; i++) await open.queue.enqueue('run-inference', { inferenceId: during });
    expect(Date.now() - startMs).toBeLessThan(7_000);
    expect(open.runsOf(during)).toHaveLength(1);
    finish();
    open.work.delete(during);
    await redis.start();
    await eventually(() => expect(open.queue.enqueue('run-inference', { inferenceId: after })).toBeDefined());
    await eventually(() => expect(open.runsOf(after).length).toBeGreaterThanOrEqual(1), 30_000);
    await open.queue.onModuleDestroy();
  });
});

describe('the catalogue', () => {
  it('refuses to start while a job has no handler, and a second handler for one', async () => {
    const database = await createDatabase();
    const queue = newQueue({ databaseUrl: database.url, redisUrl: undefined });
    queue.handle('advance-rollout', () => Promise.resolve());
    expect(() => queue.handle('advance-rollout', () => Promise.resolve())).toThrow('job advance-rollout has two handlers');
    await expect(queue.onApplicationBootstrap()).rejects.toThrow('no handler for the job run-inference');
    await queue.onModuleDestroy();
    await database.drop();
  });
});
