import { Injectable, Logger, type OnApplicationBootstrap, type OnModuleInit } from '@nestjs/common';
import { QueueService } from '../queue/queue.service.js';
import { AttemptHub } from './attempt-hub.js';
import { InferenceRepository } from './inference.repository.js';
import { InferenceRunner } from './inference.runner.js';

@Injectable()
export class RunInferenceProcessor implements OnModuleInit, OnApplicationBootstrap {
  private readonly log = new Logger('inference');

  constructor(
    private readonly queue: QueueService,
    private readonly runner: InferenceRunner,
    private readonly inferences: InferenceRepository,
    private readonly attempts: AttemptHub,
  ) {}

  onModuleInit(): void {
    this.queue.handle('run-inference', ({ inferenceId }, { signal }) => this.runner.run(inferenceId, signal));
    this.attempts.late = (attemptId) => void this.inferences.ignoreAttempt(attemptId).catch((error: unknown) => this.log.error(error));
  }

  /** An inference whose job was lost between the two stores, or used up by restarts, is queued again. */
  async onApplicationBootstrap(): Promise<void> {
    for (const inferenceId of await this.inferences.unfinished()) await this.queue.enqueue('run-inference', { inferenceId });
  }
}
