import { Body, Controller, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { JOIN_TOKEN_TTL_SECONDS_MAX, JOIN_TOKEN_USES_MAX, JoinTokenService, type IssuedJoinToken } from './join-token.service.js';

export const CreateJoinToken = z.object({
  uses: z.number().int().min(1).max(JOIN_TOKEN_USES_MAX).optional(),
  ttlSeconds: z.number().int().min(1).max(JOIN_TOKEN_TTL_SECONDS_MAX).optional(),
});

@ApiTags('access')
@Controller('api/v1/join-tokens')
export class JoinTokenController {
  constructor(private readonly tokens: JoinTokenService) {}

  /** Makes a token with which new devices enrol. */
  @Post()
  @ApiBody(bodySchema(CreateJoinToken))
  @ApiCreatedResponse({ description: 'The token, shown once, with its expiry and uses.' })
  create(@Body(new ZodPipe(CreateJoinToken)) body: z.infer<typeof CreateJoinToken>): Promise<IssuedJoinToken> {
    return this.tokens.issue(body);
  }
}
