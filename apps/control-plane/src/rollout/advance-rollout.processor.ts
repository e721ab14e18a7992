import { Injectable, Logger, type OnModuleInit } from '@nestjs/common';
import { inTenant } from '../database/scope.js';
import { QueueService } from '../queue/queue.service.js';
import { Leadership } from '../replicas/leadership.js';
import { DynamicMembership } from './dynamic-membership.js';
import { RolloutRepository } from './rollout.repository.js';
import { RolloutRunner } from './rollout.runner.js';

const LOOK_MS = 250;
const JOIN_MS = 5_000;

/** The clock of rollouts: the leader asks for a step of each that is due, any replica takes it, and what it writes carries the leader's token. */
@Injectable()
export class AdvanceRolloutProcessor implements OnModuleInit {
  private readonly log = new Logger('rollout');

  constructor(
    private readonly queue: QueueService,
    private readonly leadership: Leadership,
    private readonly rollouts: RolloutRepository,
    private readonly runner: RolloutRunner,
    private readonly membership: DynamicMembership,
  ) {}

  onModuleInit(): void {
    this.queue.handle('advance-rollout', async ({ rolloutId, lease, token }, { signal }) => {
      const tenantId = await this.rollouts.tenantOf(rolloutId);
      if (tenantId !== undefined) await inTenant(tenantId, () => this.runner.advance(rolloutId, { lease, token: BigInt(token) }, signal));
    });
    const failed = (error: unknown): void => this.log.warn(error instanceof Error ? error.message : String(error));
    this.leadership.every(
      LOOK_MS,
      async ({ lease, token }) => {
        for (const rolloutId of await this.rollouts.due()) await this.queue.enqueue('advance-rollout', { rolloutId, lease, token: String(token) });
      },
      failed,
    );
    this.leadership.every(JOIN_MS, (fence) => this.membership.admit(fence), failed);
  }
}
