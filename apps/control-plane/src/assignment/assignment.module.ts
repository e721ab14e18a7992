import { Module } from '@nestjs/common';
import { CatalogModule } from '../catalog/catalog.module.js';
import { FleetModule } from '../fleet/fleet.module.js';
import { AssignmentController } from './assignment.controller.js';
import { AssignmentRepository } from './assignment.repository.js';
import { AssignmentResolver } from './assignment.resolver.js';
import { AssignmentService } from './assignment.service.js';

@Module({
  imports: [CatalogModule, FleetModule],
  controllers: [AssignmentController],
  providers: [AssignmentRepository, AssignmentService, AssignmentResolver],
  exports: [AssignmentService],
})
export class AssignmentModule {}
