import { Global, Module } from '@nestjs/common';
import { AuditController } from './audit.controller.js';
import { AuditRepository } from './audit.repository.js';
import { AuditResolver } from './audit.resolver.js';

/** Who changed what: read here, written by each change in its own transaction. */
@Global()
@Module({ controllers: [AuditController], providers: [AuditRepository, AuditResolver], exports: [AuditRepository] })
export class AuditModule {}
