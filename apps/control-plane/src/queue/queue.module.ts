import { type DynamicModule, Global, Module } from '@nestjs/common';
import { type BackendOptions, openBackend } from './backend.js';
import { BACKEND, QueueService } from './queue.service.js';

@Global()
@Module({})
export class QueueModule {
  static forRoot(options: BackendOptions): DynamicModule {
    return {
      module: QueueModule,
      providers: [{ provide: BACKEND, useFactory: () => openBackend(options) }, QueueService],
      exports: [QueueService],
    };
  }
}
