import { Body, Controller, Get, Param, Post } from '@nestjs/common';
import { FILTER_LENGTH_MAX } from '@matfleet/filter';
import { ApiBearerAuth, ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { RolloutService } from './rollout.service.js';
import { toUpdateDto, UpdateDto } from './update.dto.js';

const CreateUpdate = z.object({
  modelVersionId: z.string().min(1).max(100),
  deviceIds: z.array(z.string().min(1).max(100)).min(1).max(100_000).optional(),
  filter: z.string().max(FILTER_LENGTH_MAX).optional(),
});

@ApiTags('updates')
@ApiBearerAuth()
@Controller('api/v1/updates')
export class UpdateController {
  constructor(private readonly rollout: RolloutService) {}

  /** Brings these devices, or those that a filter means now, by default the whole fleet, to a published model version. */
  @Post()
  @ApiBody(bodySchema(CreateUpdate))
  @ApiCreatedResponse({ type: UpdateDto })
  async create(@Body(new ZodPipe(CreateUpdate)) body: z.infer<typeof CreateUpdate>, @Caller() actor: Actor): Promise<UpdateDto> {
    return toUpdateDto(await this.rollout.create(body, actor));
  }

  /** Newest first. */
  @Get()
  @ApiOkResponse({ type: [UpdateDto] })
  async list(): Promise<UpdateDto[]> {
    return (await this.rollout.list()).map(toUpdateDto);
  }

  @Get(':id')
  @ApiOkResponse({ type: UpdateDto })
  async get(@Param('id') id: string): Promise<UpdateDto> {
    return toUpdateDto(await this.rollout.get(id));
  }
}
