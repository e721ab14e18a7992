import { Body, Controller, Delete, Get, Param, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { LabelGrant } from '../fleet/device-labels.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import {
  ENROLMENT_MODES,
  JOIN_TOKEN_TTL_SECONDS_MAX,
  JOIN_TOKEN_USES_MAX,
  JoinTokenService,
  type IssuedJoinToken,
  type JoinTokenView,
} from './join-token.service.js';

export const CreateJoinToken = z.object({
  uses: z.number().int().min(1).max(JOIN_TOKEN_USES_MAX).optional(),
  ttlSeconds: z.number().int().min(1).max(JOIN_TOKEN_TTL_SECONDS_MAX).optional(),
  mode: z.enum(ENROLMENT_MODES).optional(),
  labels: LabelGrant.optional(),
});

@ApiTags('identity')
@Controller('api/v1/join-tokens')
export class JoinTokenController {
  constructor(private readonly tokens: JoinTokenService) {}

  /** Makes a token with which new devices enrol: at once (`auto`), once an operator accepts (`request`), or if their key was announced (`preauthorised`). */
  @Post()
  @ApiBody(bodySchema(CreateJoinToken))
  @ApiCreatedResponse({ description: 'The token, shown once, with its expiry and uses.' })
  create(@Body(new ZodPipe(CreateJoinToken)) body: z.infer<typeof CreateJoinToken>, @Caller() actor: Actor): Promise<IssuedJoinToken> {
    return this.tokens.issue(body, actor);
  }

  @Get()
  @ApiOkResponse({ description: 'Tokens without their secrets, newest first, until a week after their end.' })
  list(): Promise<JoinTokenView[]> {
    return this.tokens.list();
  }

  /** Nobody enrols with it any more. */
  @Delete(':id')
  @ApiOkResponse({ description: 'The token, revoked.' })
  revoke(@Param('id') id: string, @Caller() actor: Actor): Promise<JoinTokenView> {
    return this.tokens.revoke(id, actor);
  }
}
