import { Body, Controller, Get, Headers, HttpCode, Param, Put, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiConsumes, ApiHeader, ApiNoContentResponse, ApiProduces, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { DomainError } from '../errors.js';
import { streamBody } from '../octet-stream.js';
import { parseRange } from './byte-range.js';
import { CatalogService } from './catalog.service.js';

@ApiTags('models')
@ApiBearerAuth()
@Controller('api/v1/chunks')
export class ChunkController {
  constructor(private readonly catalog: CatalogService) {}

  /** Sends one chunk; its bytes must have the id for SHA-256. Safe to repeat. */
  @Put(':id')
  @HttpCode(204)
  @ApiConsumes('application/octet-stream')
  @ApiBody({ schema: { type: 'string', format: 'binary' } })
  @ApiNoContentResponse({ description: 'The chunk is kept.' })
  async put(@Param('id') id: string, @Body() body: unknown): Promise<void> {
    await this.catalog.putChunk(id, streamBody(body));
  }

  /** Downloads a chunk, or one range of it: a download that broke off goes on from the bytes already held. */
  @Get(':id')
  @ApiProduces('application/octet-stream')
  @ApiHeader({ name: 'range', required: false })
  async get(
    @Param('id') id: string,
    @Headers('range') rangeHeader: string | undefined,
    @Headers('if-range') ifRange: string | undefined,
    @Headers('if-none-match') ifNoneMatch: string | undefined,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const bytes = await this.catalog.chunkBytes(id);
    const etag = `"${id}"`;
    // The name is the content, so it never changes.
    reply.headers({
      etag,
      'accept-ranges': 'bytes',
      'cache-control': 'private, max-age=31536000, immutable',
      'content-type': 'application/octet-stream',
    });
    if (ifNoneMatch?.includes(etag)) return void (await reply.code(304).send());
    const range = parseRange(ifRange === undefined || ifRange === etag ? rangeHeader : undefined, bytes);
    if (range.kind === 'unsatisfiable') {
      reply.header('content-range', `bytes */${bytes}`);
      throw new DomainError('out-of-range', `chunk ${id} has ${bytes} bytes, which ${rangeHeader} does not touch`);
    }
    const { from, to } = range.kind === 'part' ? range : { from: 0, to: bytes };
    if (range.kind === 'part') reply.code(206).header('content-range', `bytes ${from}-${to - 1}/${bytes}`);
    await reply.header('content-length', to - from).send(await this.catalog.openChunk(id, from, to - from));
  }
}
