import { Body, Controller, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiQuery, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import type { DeviceView } from './device.js';
import { LabelPatch } from './device-labels.js';
import { DEVICE_PAGE_MAX, DeviceViews } from './device-views.js';
import { FleetService } from './fleet.service.js';

const List = z.object({
  filter: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(DEVICE_PAGE_MAX).optional(),
  after: z.string().max(200).optional(),
});

@ApiTags('devices')
@Controller('api/v1/devices')
export class DeviceController {
  constructor(
    private readonly fleet: FleetService,
    private readonly views: DeviceViews,
  ) {}

  /** One page; a page that is shorter than its limit is the last one. */
  @Get()
  @ApiQuery({ name: 'filter', required: false, description: 'Which devices, in CEL.', example: 'labels.site == "berlin" && presence == "online"' })
  @ApiQuery({ name: 'limit', required: false, type: 'integer', description: `At most, and without it, ${DEVICE_PAGE_MAX}.` })
  @ApiQuery({ name: 'after', required: false, type: String, description: 'The name of the last device of the page before.' })
  @ApiOkResponse({ description: 'The devices, by name.' })
  list(@Query(new ZodPipe(List)) query: z.infer<typeof List>): Promise<DeviceView[]> {
    return this.views.list(query);
  }

  @Get(':id')
  @ApiOkResponse({ description: 'The device.' })
  get(@Param('id') id: string): Promise<DeviceView> {
    return this.views.get(id);
  }

  /** Changes the labels: a JSON merge patch, where null takes a label away. */
  @Patch(':id/labels')
  @ApiBody(bodySchema(LabelPatch))
  @ApiOkResponse({ description: 'The device with its labels.' })
  async patchLabels(@Param('id') id: string, @Body(new ZodPipe(LabelPatch)) patch: LabelPatch, @Caller() actor: Actor): Promise<DeviceView> {
    await this.fleet.patchLabels(id, patch, actor);
    return this.views.get(id);
  }
}
