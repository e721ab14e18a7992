import { Controller, Get, Query } from '@nestjs/common';
import { ApiOkResponse, ApiQuery, ApiTags } from '@nestjs/swagger';
import type { AuditHead, AuditRecord } from '@matfleet/history';
import { z } from 'zod';
import { ZodPipe } from '../zod.pipe.js';
import { AuditRepository } from './audit.repository.js';

const whole = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
export const AUDIT_PAGE_MAX = 1_000;
const AuditQuery = z
  .object({
    limit: z.coerce.number().int().min(1).max(AUDIT_PAGE_MAX).default(100),
    before: whole.optional(),
    after: whole.optional(),
    subject: z.string().max(200).optional(),
  })
  .refine(({ before, after, subject }) => after === undefined || (before === undefined && subject === undefined), {
    error: '`after` reads the whole log forwards: it does not go with `before` or `subject`',
  });

@ApiTags('audit')
@Controller('api/v1/audit')
export class AuditController {
  constructor(private readonly audit: AuditRepository) {}

  /** Who changed what, newest first; with `after`, oldest first from the record after that one. */
  @Get()
  @ApiQuery({ name: 'limit', required: false, description: 'At most 1000; 100 without.' })
  @ApiQuery({ name: 'before', required: false, description: 'Records before this sequence number.' })
  @ApiQuery({ name: 'after', required: false, description: 'Records after this sequence number, oldest first: for an export.' })
  @ApiQuery({ name: 'subject', required: false, description: 'Of one thing alone.', example: 'device:4f2a…' })
  @ApiOkResponse({ description: 'Records, each with the hash of the one before.' })
  list(@Query(new ZodPipe(AuditQuery)) { limit, after, ...rest }: z.infer<typeof AuditQuery>): Promise<AuditRecord[]> {
    return after === undefined ? this.audit.newest(limit, rest) : this.audit.since(limit, after);
  }

  /** The newest record's number and hash. Kept elsewhere, it proves later that the log was neither cut nor rewritten. */
  @Get('head')
  @ApiOkResponse({ description: 'Sequence number and hash.' })
  head(): Promise<AuditHead> {
    return this.audit.head();
  }
}
