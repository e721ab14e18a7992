import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiOkResponse, ApiQuery, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { ZodPipe } from '../zod.pipe.js';
import { TIMELINE_KINDS, type TimelinePage } from './timeline.js';
import { Timeline } from './timeline.service.js';

const whole = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
export const TIMELINE_PAGE_MAX = 500;
export const TimelineList = z
  .object({
    limit: z.coerce.number().int().min(1).max(TIMELINE_PAGE_MAX).default(100),
    kind: z.enum(TIMELINE_KINDS).optional(),
    before: whole.optional(),
    after: whole.optional(),
  })
  .refine(({ before, after }) => before === undefined || after === undefined, { error: '`before` and `after` do not go together' });

@ApiTags('devices')
@Controller('api/v1/devices/:id/timeline')
export class TimelineController {
  constructor(private readonly timeline: Timeline) {}

  /** What happened to a device, newest first; also of one that is gone, for 30 days. With `after`, oldest first from that entry on: for following. */
  @Get()
  @ApiQuery({ name: 'limit', required: false, type: 'integer', description: `At most ${TIMELINE_PAGE_MAX}; 100 without.` })
  @ApiQuery({ name: 'kind', required: false, enum: TIMELINE_KINDS })
  @ApiQuery({ name: 'before', required: false, type: 'integer', description: '`next` of the page before.' })
  @ApiQuery({ name: 'after', required: false, type: 'integer', description: 'The id of the last entry that is known.' })
  @ApiOkResponse({ description: 'Entries, and where the next page begins: null at the end.' })
  list(@Param('id') id: string, @Query(new ZodPipe(TimelineList)) query: z.infer<typeof TimelineList>): Promise<TimelinePage> {
    return this.timeline.page(id, query);
  }
}
