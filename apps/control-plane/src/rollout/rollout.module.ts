import { Module } from '@nestjs/common';
import { AssignmentModule } from '../assignment/assignment.module.js';
import { CatalogModule } from '../catalog/catalog.module.js';
import { FleetModule } from '../fleet/fleet.module.js';
import { AdvanceRolloutProcessor } from './advance-rollout.processor.js';
import { DynamicMembership } from './dynamic-membership.js';
import { GateEvidenceRepository } from './gate-evidence.repository.js';
import { DeviceRolloutController, RolloutController } from './rollout.controller.js';
import { RolloutRepository } from './rollout.repository.js';
import { RolloutResolver } from './rollout.resolver.js';
import { RolloutRunner } from './rollout.runner.js';
import { RolloutService } from './rollout.service.js';
import { RolloutTargetRepository } from './rollout-target.repository.js';

@Module({
  imports: [CatalogModule, FleetModule, AssignmentModule],
  controllers: [RolloutController, DeviceRolloutController],
  providers: [
    RolloutRepository,
    RolloutTargetRepository,
    GateEvidenceRepository,
    RolloutRunner,
    RolloutService,
    DynamicMembership,
    AdvanceRolloutProcessor,
    RolloutResolver,
  ],
  exports: [RolloutService],
})
export class RolloutModule {}
