import { Injectable, Logger, type OnModuleInit } from '@nestjs/common';
import { inTenant } from '../database/scope.js';
import { Leadership } from '../replicas/leadership.js';
import { Replicas } from '../replicas/replicas.service.js';
import { QueueService } from '../queue/queue.service.js';
import { AttemptHub } from './attempt-hub.js';
import { InferenceRepository } from './inference.repository.js';
import { InferenceRunner } from './inference.runner.js';

const REQUEUE_MS = 5_000;
/** A job that nobody has taken for so long may be lost; one that only waits its turn stays the only one of its id. */
const QUEUED_MS = 5_000;

@Injectable()
export class RunInferenceProcessor implements OnModuleInit {
  private readonly log = new Logger('inference');

  constructor(
    private readonly queue: QueueService,
    private readonly runner: InferenceRunner,
    private readonly inferences: InferenceRepository,
    private readonly attempts: AttemptHub,
    private readonly replicas: Replicas,
    private readonly leadership: Leadership,
  ) {}

  onModuleInit(): void {
    this.queue.handle('run-inference', async ({ inferenceId }, { signal }) => {
      const tenantId = await this.inferences.tenantOf(inferenceId);
      if (tenantId !== undefined) await inTenant(tenantId, () => this.runner.run(inferenceId, signal));
    });
    this.leadership.every(
      REQUEUE_MS,
      () => this.requeue(),
      (error) => this.log.warn(error instanceof Error ? error.message : String(error)),
    );
    this.attempts.late = (attemptId) => void this.inferences.ignoreAttempt(attemptId).catch((error: unknown) => this.log.error(error));
  }

  /** An inference whose job was lost between the two stores, with its replica, or used up by restarts, is queued again. */
  private async requeue(): Promise<void> {
    const living = [this.replicas.id, ...this.replicas.peers().map((peer) => peer.id)];
    for (const inferenceId of await this.inferences.forgotten(living, new Date(Date.now() - QUEUED_MS)))
      await this.queue.enqueue('run-inference', { inferenceId });
  }
}
