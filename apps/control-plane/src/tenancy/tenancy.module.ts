import { Module } from '@nestjs/common';
import { TenantController } from './tenant.controller.js';
import { TenantRepository } from './tenant.repository.js';
import { TenantResolver } from './tenant.resolver.js';
import { TenantService } from './tenant.service.js';

/** Organisations on one installation. What keeps their rows apart is `database/`. */
@Module({ controllers: [TenantController], providers: [TenantRepository, TenantService, TenantResolver], exports: [TenantService] })
export class TenancyModule {}
