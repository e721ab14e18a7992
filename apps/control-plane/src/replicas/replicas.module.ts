import { Global, Module } from '@nestjs/common';
import { Leadership } from './leadership.js';
import { NudgeService } from './nudges.js';
import { ReplicaRepository } from './replica.repository.js';
import { Replicas } from './replicas.service.js';

@Global()
@Module({ providers: [ReplicaRepository, Replicas, Leadership, NudgeService], exports: [ReplicaRepository, Replicas, Leadership, NudgeService] })
export class ReplicasModule {}
