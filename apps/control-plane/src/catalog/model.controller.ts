import { Body, Controller, Get, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiConsumes, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { readAll, streamBody } from '../octet-stream.js';
import { CatalogService } from './catalog.service.js';
import { ModelVersionDto, RegisteredModelDto, toModelVersionDto } from './model.dto.js';

const MANIFEST_BYTES_MAX = 32 * 2 ** 20;

@ApiTags('models')
@ApiBearerAuth()
@Controller('api/v1/models')
export class ModelController {
  constructor(private readonly catalog: CatalogService) {}

  /** Registers a package by its manifest.json, byte for byte, and answers which chunks it still lacks. */
  @Post()
  @ApiConsumes('application/octet-stream')
  @ApiBody({ schema: { type: 'string', format: 'binary' } })
  @ApiCreatedResponse({ type: RegisteredModelDto })
  async register(@Body() body: unknown, @Caller() actor: Actor): Promise<RegisteredModelDto> {
    return this.catalog.register(await readAll(streamBody(body), MANIFEST_BYTES_MAX, 'the manifest'), actor);
  }

  /** Opens a version to devices, once all its chunks are here. */
  @Post(':id/publish')
  @HttpCode(200)
  @ApiOkResponse({ type: ModelVersionDto })
  async publish(@Param('id') id: string, @Caller() actor: Actor): Promise<ModelVersionDto> {
    return toModelVersionDto(await this.catalog.publish(id, actor));
  }

  /** Published and not, newest first. */
  @Get()
  @ApiOkResponse({ type: [ModelVersionDto] })
  async list(): Promise<ModelVersionDto[]> {
    return (await this.catalog.list()).map(toModelVersionDto);
  }

  @Get(':id')
  @ApiOkResponse({ type: ModelVersionDto })
  async find(@Param('id') id: string): Promise<ModelVersionDto> {
    return toModelVersionDto(await this.catalog.version(id));
  }
}
