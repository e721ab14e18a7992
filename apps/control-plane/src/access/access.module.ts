import { Module } from '@nestjs/common';
import { AccessRepository } from './access.repository.js';
import { ApiKeyService } from './api-key.service.js';
import { SessionController } from './session.controller.js';
import { SessionService } from './session.service.js';

@Module({ controllers: [SessionController], providers: [AccessRepository, ApiKeyService, SessionService], exports: [ApiKeyService, SessionService] })
export class AccessModule {}
