import { Module } from '@nestjs/common';
import { CatalogModule } from '../catalog/catalog.module.js';
import { FleetModule } from '../fleet/fleet.module.js';
import { AttemptHub } from './attempt-hub.js';
import { Breakers } from './breakers.js';
import { FleetAnswers } from './fleet-answers.js';
import { InferenceController } from './inference.controller.js';
import { InferenceRepository } from './inference.repository.js';
import { InferenceResolver } from './inference.resolver.js';
import { InferenceRunner } from './inference.runner.js';
import { InferenceService } from './inference.service.js';
import { ReachableDevices } from './reachable-devices.js';
import { RunInferenceProcessor } from './run-inference.processor.js';

@Module({
  imports: [CatalogModule, FleetModule],
  controllers: [InferenceController],
  providers: [
    AttemptHub,
    Breakers,
    ReachableDevices,
    FleetAnswers,
    InferenceRepository,
    InferenceService,
    InferenceRunner,
    RunInferenceProcessor,
    InferenceResolver,
  ],
  exports: [AttemptHub, FleetAnswers, ReachableDevices],
})
export class InferenceModule {}
