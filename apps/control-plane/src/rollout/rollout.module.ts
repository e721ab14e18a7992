import { Module } from '@nestjs/common';
import { AssignmentModule } from '../assignment/assignment.module.js';
import { CatalogModule } from '../catalog/catalog.module.js';
import { FleetModule } from '../fleet/fleet.module.js';
import { PushUpdateProcessor } from './push-update.processor.js';
import { RolloutService } from './rollout.service.js';
import { UpdateController } from './update.controller.js';
import { UpdateRepository } from './update.repository.js';
import { UpdateResolver } from './update.resolver.js';

@Module({
  imports: [CatalogModule, FleetModule, AssignmentModule],
  controllers: [UpdateController],
  providers: [UpdateRepository, RolloutService, PushUpdateProcessor, UpdateResolver],
  exports: [RolloutService],
})
export class RolloutModule {}
