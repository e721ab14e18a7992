import { Body, Controller, Delete, Get, Param, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { type ApiKeyView, CreateApiKey, type IssuedApiKey } from './api-key.js';
import { ApiKeyService } from './api-key.service.js';
import { CallerInfo, type CallerIdentity } from './caller.js';

@ApiTags('access')
@Controller('api/v1')
export class ApiKeyController {
  constructor(private readonly keys: ApiKeyService) {}

  /** Makes a key of the caller's tenant, with a role, for all devices or those of a filter, for ever or for a while. */
  @Post('api-keys')
  @ApiBody(bodySchema(CreateApiKey))
  @ApiCreatedResponse({ description: 'The key with its secret, which is shown once.' })
  create(@Body(new ZodPipe(CreateApiKey)) body: CreateApiKey, @CallerInfo() caller: CallerIdentity): Promise<IssuedApiKey> {
    return this.keys.issue(body, caller);
  }

  @Get('api-keys')
  @ApiOkResponse({ description: 'Keys without their secrets, newest first; revoked ones for a month.' })
  list(): Promise<ApiKeyView[]> {
    return this.keys.list();
  }

  /** Nobody comes in with it any more, nor with a login that it opened. */
  @Delete('api-keys/:id')
  @ApiOkResponse({ description: 'The key, revoked.' })
  revoke(@Param('id') id: string, @CallerInfo() caller: CallerIdentity): Promise<ApiKeyView> {
    return this.keys.revoke(id, caller.actor);
  }

  /** Who is asking: tenant, role, devices. */
  @Get('caller')
  @ApiOkResponse({ description: 'What the key or login of this call may do.' })
  caller(@CallerInfo() { actor, tenantId, role, installation, filter }: CallerIdentity): object {
    return { actor, tenantId, role, installation, devices: filter };
  }
}
