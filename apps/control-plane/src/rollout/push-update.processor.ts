import { Injectable, type OnModuleInit } from '@nestjs/common';
import { QueueService } from '../queue/queue.service.js';
import { RolloutService } from './rollout.service.js';

@Injectable()
export class PushUpdateProcessor implements OnModuleInit {
  constructor(
    private readonly queue: QueueService,
    private readonly rollout: RolloutService,
  ) {}

  onModuleInit(): void {
    this.queue.handle('push-update', ({ updateId }, { signal }) => this.rollout.push(updateId, signal));
  }
}
