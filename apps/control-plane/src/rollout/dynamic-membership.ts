import { Injectable, Logger } from '@nestjs/common';
import type { Fence } from '../database/fence.js';
import { inTenant } from '../database/scope.js';
import { DeviceViews } from '../fleet/device-views.js';
import { FleetService } from '../fleet/fleet.service.js';
import { Changed, RolloutRepository } from './rollout.repository.js';
import { RolloutTargetRepository } from './rollout-target.repository.js';

/** Takes devices into running rollouts that stay open to those who come to match. */
@Injectable()
export class DynamicMembership {
  private readonly log = new Logger('rollout');

  constructor(
    private readonly rollouts: RolloutRepository,
    private readonly targets: RolloutTargetRepository,
    private readonly fleet: FleetService,
    private readonly views: DeviceViews,
  ) {}

  async admit(fence: Fence): Promise<void> {
    for (const { id, tenantId } of await this.rollouts.dynamic()) await inTenant(tenantId, () => this.admitTo(id, fence));
  }

  private async admitTo(id: string, fence: Fence): Promise<void> {
    const rollout = await this.rollouts.find(id);
    const last = rollout?.waves.at(-1)?.state;
    if (!rollout || (last !== 'pending' && last !== 'awaiting-approval' && last !== 'running')) return;
    const [fleet, known] = await Promise.all([this.fleet.ids(), this.targets.ids(id)]);
    const meant = rollout.filter === null ? null : new Set(await this.views.idsOf(rollout.filter));
    const late = fleet.filter((deviceId) => !known.has(deviceId) && (meant?.has(deviceId) ?? true));
    if (late.length === 0) return;
    try {
      await this.rollouts.join(rollout, late, fence);
      this.log.log({ rolloutId: id, devices: late.length, msg: 'devices joined a rollout' });
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
    }
  }
}
