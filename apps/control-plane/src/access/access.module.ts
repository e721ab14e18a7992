import { Module } from '@nestjs/common';
import { AccessRepository } from './access.repository.js';
import { ApiKeyController } from './api-key.controller.js';
import { ApiKeyResolver } from './api-key.resolver.js';
import { ApiKeyService } from './api-key.service.js';
import { SessionController } from './session.controller.js';
import { SessionService } from './session.service.js';

@Module({
  controllers: [SessionController, ApiKeyController],
  providers: [AccessRepository, ApiKeyService, ApiKeyResolver, SessionService],
  exports: [ApiKeyService, SessionService],
})
export class AccessModule {}
