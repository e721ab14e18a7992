import { Body, Controller, Delete, Get, HttpCode, Param, Post, Put } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiConsumes, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { readAll, streamBody } from '../octet-stream.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { CatalogService } from './catalog.service.js';
import { GarbageService, type GarbageReport } from './garbage.service.js';
import { ModelVersionDto, RegisteredModelDto, toModelVersionDto } from './model.dto.js';

const MANIFEST_BYTES_MAX = 32 * 2 ** 20;
const CollectGarbage = z.object({
  /** Younger ones stay. */
  olderThanSeconds: z
    .number()
    .int()
    .min(0)
    .default(7 * 86_400),
  /** Otherwise it is only said what would go. */
  remove: z.boolean().default(false),
});

@ApiTags('models')
@ApiBearerAuth()
@Controller('api/v1/models')
export class ModelController {
  constructor(
    private readonly catalog: CatalogService,
    private readonly garbage: GarbageService,
  ) {}

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

  /** Keeps the version from being collected as garbage. */
  @Put(':id/pin')
  @ApiOkResponse({ type: ModelVersionDto })
  async pin(@Param('id') id: string, @Caller() actor: Actor): Promise<ModelVersionDto> {
    return toModelVersionDto(await this.catalog.pin(id, true, actor));
  }

  @Delete(':id/pin')
  @ApiOkResponse({ type: ModelVersionDto })
  async unpin(@Param('id') id: string, @Caller() actor: Actor): Promise<ModelVersionDto> {
    return toModelVersionDto(await this.catalog.pin(id, false, actor));
  }

  /** Says, or does, what collecting garbage would remove: versions that are neither assigned nor anybody's way back nor pinned nor in flight, and chunks that no version names. */
  @Post('gc')
  @HttpCode(200)
  @ApiBody(bodySchema(CollectGarbage))
  @ApiOkResponse({ description: 'What is garbage, and why the rest is not.' })
  collect(@Body(new ZodPipe(CollectGarbage)) body: z.infer<typeof CollectGarbage>, @Caller() actor: Actor): Promise<GarbageReport> {
    return this.garbage.collect({ minimumAgeMs: body.olderThanSeconds * 1_000, remove: body.remove }, actor);
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
