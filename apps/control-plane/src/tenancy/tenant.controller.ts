import { Body, Controller, Get, Param, Patch, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { QuotaPatch } from './quota.js';
import { CreateTenant, type TenantView } from './tenant.js';
import { TenantService } from './tenant.service.js';

/** For keys of the installation alone. Such a key acts in another tenant with the header `x-matfleet-tenant`. */
@ApiTags('tenants')
@Controller('api/v1/tenants')
export class TenantController {
  constructor(private readonly tenants: TenantService) {}

  @Post()
  @ApiBody(bodySchema(CreateTenant))
  @ApiCreatedResponse({ description: 'The tenant.' })
  create(@Body(new ZodPipe(CreateTenant)) body: z.infer<typeof CreateTenant>, @Caller() actor: Actor): Promise<TenantView> {
    return this.tenants.create(body, actor);
  }

  @Get()
  @ApiOkResponse({ description: 'All tenants, by id.' })
  list(): Promise<TenantView[]> {
    return this.tenants.list();
  }

  /** Limits what the tenant may have; null takes a limit away, what is left out stays. */
  @Patch(':id')
  @ApiBody(bodySchema(QuotaPatch))
  @ApiOkResponse({ description: 'The tenant.' })
  setQuotas(@Param('id') id: string, @Body(new ZodPipe(QuotaPatch)) patch: QuotaPatch, @Caller() actor: Actor): Promise<TenantView> {
    return this.tenants.setQuotas(id, patch, actor);
  }

  @Get(':id')
  @ApiOkResponse({ description: 'The tenant.' })
  get(@Param('id') id: string): Promise<TenantView> {
    return this.tenants.get(id);
  }
}
