import { Global, Module } from '@nestjs/common';
import { TimelineController } from './timeline.controller.js';
import { TimelineRepository } from './timeline.repository.js';
import { TimelineResolver } from './timeline.resolver.js';
import { Timeline } from './timeline.service.js';

/** What happened to each device: noted by every feature, read here. */
@Global()
@Module({ controllers: [TimelineController], providers: [TimelineRepository, Timeline, TimelineResolver], exports: [Timeline] })
export class TimelineModule {}
