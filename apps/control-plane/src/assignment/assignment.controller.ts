import { Controller, Get, HttpCode, Param, Post } from '@nestjs/common';
import { ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import type { ExplainedAssignment } from './assignment.repository.js';
import { AssignmentService } from './assignment.service.js';

@ApiTags('devices')
@Controller('api/v1/devices/:id')
export class AssignmentController {
  constructor(private readonly assignments: AssignmentService) {}

  @Get('assignments')
  @ApiOkResponse({ description: 'Every generation of the desired document, newest first, with its explanation.' })
  list(@Param('id') id: string): Promise<ExplainedAssignment[]> {
    return this.assignments.history(id);
  }

  /** Decides again with what is known now; answers the assignment that is in force then. */
  @Post('evaluate')
  @HttpCode(200)
  @ApiOkResponse({ description: 'The newest assignment, null when nothing could be assigned yet.' })
  async evaluate(@Param('id') id: string, @Caller() actor: Actor): Promise<{ assignment: ExplainedAssignment | null }> {
    await this.assignments.evaluateFor(actor, id);
    return { assignment: (await this.assignments.history(id))[0] ?? null };
  }
}
