import { Injectable } from '@nestjs/common';
import { NOTHING_BEGUN } from '../domain/begun-answer.js';
import type { Tried } from '../domain/routing.js';
import { Replicas } from '../replicas/replicas.service.js';
import { FleetAnswers, type AnswerWatcher } from './fleet-answers.js';
import { InferenceRepository } from './inference.repository.js';
import { InferenceService } from './inference.service.js';

/** Answers queued inferences, each exactly once, and keeps the trace of its attempts. */
@Injectable()
export class InferenceRunner {
  private readonly running = new Map<string, Promise<void>>();

  constructor(
    private readonly inferences: InferenceRepository,
    private readonly service: InferenceService,
    private readonly answers: FleetAnswers,
    private readonly replicas: Replicas,
  ) {}

  /** Safe to repeat: an inference that has ended stays as it is, one that runs here already is only waited for. */
  run(inferenceId: string, signal: AbortSignal): Promise<void> {
    const before = this.running.get(inferenceId);
    if (before) return before;
    const run = this.answer(inferenceId, signal).finally(() => {
      this.running.delete(inferenceId);
      this.service.ended(inferenceId);
    });
    this.running.set(inferenceId, run);
    return run;
  }

  private async answer(id: string, signal: AbortSignal): Promise<void> {
    const [inference, request] = await Promise.all([this.inferences.find(id), this.inferences.request(id)]);
    if (!inference || !request || inference.finishedAt) return;
    const others = this.replicas.peers().map((peer) => peer.id);
    // Its job can be with two replicas at the same time, when the queue lost one for a while.
    if (!(await this.inferences.claim(id, this.replicas.id, others))) return;
    await this.inferences.loseRunning(id, 'the control plane that watched this attempt ended', new Date());
    await this.inferences.setRunning(id);
    this.service.changed(id);
    const answer = await this.answers.answer(
      {
        inferenceId: id,
        request: { ...request, task: inference.task },
        qualityFloor: inference.qualityFloor,
        deadlineAtMs: inference.deadlineAt.getTime(),
        begun: NOTHING_BEGUN,
        // What ran before a restart counts as an attempt, but its device may be asked again: no session has epoch 0.
        tried: inference.attempts.map(({ deviceId }): Tried => ({ deviceId, epoch: 0n, quality: null, endedAtMs: Date.now(), retryable: true })),
        firstOrdinal: 1 + inference.attempts.reduce((last, attempt) => Math.max(last, attempt.ordinal), 0),
        waits: true,
      },
      this.watcher(id),
      signal,
    );
    if (answer.kind === 'answered') return;
    await this.inferences.fail(id, answer.error, new Date());
    this.service.changed(id);
  }

  private watcher(inferenceId: string): AnswerWatcher {
    const { inferences, service } = this;
    return {
      async begins({ id, ordinal, device, modelVersionId, sliceId, reason }) {
        await inferences.addAttempt({ id, inferenceId, ordinal, deviceId: device.deviceId, modelVersionId, sliceId, reason });
        service.changed(inferenceId);
      },
      wrote: ({ ordinal }, text) => service.wrote(inferenceId, ordinal, text),
      async ended({ id }, outcome) {
        const now = new Date();
        if (outcome.kind === 'answered') {
          const { text, ttftMs, outputTokens } = outcome;
          await inferences.answer(inferenceId, id, text, { state: 'succeeded', error: null, ttftMs, outputTokens }, now);
        } else await inferences.endAttempt(id, { state: 'failed', error: outcome.error }, now);
        service.changed(inferenceId);
      },
    };
  }
}
