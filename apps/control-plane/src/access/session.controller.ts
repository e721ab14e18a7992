import { Body, Controller, Delete, Headers, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiBody, ApiNoContentResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { CONFIG, type Config } from '../config.js';
import { DomainError } from '../errors.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { isSameOrigin } from './gate.js';
import { SESSION_COOKIE, SESSION_SECONDS, SessionService } from './session.service.js';

const OpenSession = z.object({ apiKey: z.string().min(1).max(200) });

@ApiTags('access')
@Controller('api/v1/session')
export class SessionController {
  constructor(
    private readonly sessions: SessionService,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Trades an API key for the console's cookie. */
  @Post()
  @HttpCode(204)
  @ApiBody(bodySchema(OpenSession))
  @ApiNoContentResponse({ description: 'The cookie is set.' })
  async open(
    @Body(new ZodPipe(OpenSession)) body: z.infer<typeof OpenSession>,
    @Headers('origin') origin: string | undefined,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    if (origin !== undefined && !isSameOrigin(request.headers))
      throw new DomainError('permission-denied', `a login must come from this origin, not from ${origin}`);
    const secret = await this.sessions.open(body.apiKey, request.ip);
    reply.setCookie(SESSION_COOKIE, secret, { ...this.cookie, maxAge: SESSION_SECONDS });
  }

  /** Ends the console's session. */
  @Delete()
  @HttpCode(204)
  @ApiNoContentResponse({ description: 'The session has ended.' })
  async close(@Req() request: FastifyRequest, @Res({ passthrough: true }) reply: FastifyReply): Promise<void> {
    const secret = request.cookies[SESSION_COOKIE];
    if (secret) await this.sessions.close(secret);
    reply.clearCookie(SESSION_COOKIE, this.cookie);
  }

  private get cookie() {
    return { path: '/', httpOnly: true, sameSite: 'strict' as const, secure: this.config.httpTls !== undefined || this.config.httpBehindProxy };
  }
}
