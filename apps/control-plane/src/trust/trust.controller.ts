import { Body, Controller, Get, HttpCode, Param, Post, Put, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiConsumes, ApiCreatedResponse, ApiOkResponse, ApiProduces, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { readAll, streamBody } from '../octet-stream.js';
import { TrustService, type RoleView } from './trust.service.js';

const ROOT_BYTES_MAX = 512_000;

@ApiTags('trust')
@ApiBearerAuth()
@Controller('api/v1/trust')
export class TrustController {
  constructor(private readonly trust: TrustService) {}

  /** The four roles of the signed metadata: versions, expiry, thresholds, keys, and how many of them this control plane holds. */
  @Get()
  @ApiOkResponse({ description: 'One entry a role.' })
  view(): Promise<RoleView[]> {
    return this.trust.view();
  }

  /** Signed metadata as devices get it: `root.json`, `<version>.root.json`, `timestamp.json`, `<version>.snapshot.json`, `<version>.targets.json`. */
  @Get('metadata/:name')
  @ApiProduces('application/json')
  async file(@Param('name') name: string, @Res() reply: FastifyReply): Promise<void> {
    await reply.header('content-type', 'application/json; charset=utf-8').send(Buffer.from(await this.trust.file(name)));
  }

  /** Makes a key for the next root to name. Its private half stays in the control plane. */
  @Post('keys')
  @ApiCreatedResponse({ description: 'The key’s id and its public half in hex.' })
  prepareKey(@Caller() actor: Actor): Promise<{ keyId: string; public: string }> {
    return this.trust.prepareKey(actor);
  }

  /** Takes the next root, signed by enough keys of the current one and of its own. */
  @Put('root')
  @ApiConsumes('application/octet-stream')
  @ApiBody({ schema: { type: 'string', format: 'binary' } })
  @ApiOkResponse({ description: 'The roles after it.' })
  async putRoot(@Body() body: unknown, @Caller() actor: Actor): Promise<RoleView[]> {
    return this.trust.putRoot(await readAll(streamBody(body), ROOT_BYTES_MAX, 'the root metadata'), actor);
  }

  /** A new key for one role, while the root key is the control plane’s own. */
  @Post('rotate/:role')
  @HttpCode(200)
  @ApiOkResponse({ description: 'The roles after it.' })
  rotate(@Param('role') role: string, @Caller() actor: Actor): Promise<RoleView[]> {
    return this.trust.rotate(role, actor);
  }
}
