import { Body, Controller, Get, Headers, HttpCode, Param, Post, Put, Query, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiConsumes, ApiHeader, ApiNoContentResponse, ApiOkResponse, ApiProduces, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { DomainError } from '../errors.js';
import { streamBody } from '../octet-stream.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { parseRange } from './byte-range.js';
import { CatalogService } from './catalog.service.js';

const URL_SECONDS_MAX = 24 * 3_600;
const SignChunk = z.object({ seconds: z.number().int().min(1).max(URL_SECONDS_MAX).default(900) });

interface RangeHeaders {
  readonly range?: string | undefined;
  readonly 'if-range'?: string | undefined;
  readonly 'if-none-match'?: string | undefined;
}

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
  async get(@Param('id') id: string, @Headers() headers: RangeHeaders, @Res() reply: FastifyReply): Promise<void> {
    await sendChunk(this.catalog, id, headers, reply);
  }

  /** An address from which anybody who has it may read the chunk until it ends: the storage's own, where it has one. */
  @Post(':id/url')
  @HttpCode(200)
  @ApiBody(bodySchema(SignChunk))
  @ApiOkResponse({ description: 'The address, relative to this API where it is this API’s, and when it ends.' })
  sign(@Param('id') id: string, @Body(new ZodPipe(SignChunk)) { seconds }: z.infer<typeof SignChunk>): Promise<{ url: string; expiresAt: string }> {
    return this.catalog.signChunk(id, seconds);
  }
}

/** Open to whoever holds a signed address; `access/gate.ts` names the route. */
@ApiTags('models')
@Controller('api/v1/signed-chunks')
export class SignedChunkController {
  constructor(private readonly catalog: CatalogService) {}

  @Get(':id')
  @ApiProduces('application/octet-stream')
  async get(
    @Param('id') id: string,
    @Query('expires') expires: string,
    @Query('signature') signature: string,
    @Headers() headers: RangeHeaders,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    if (!this.catalog.isSigned(id, Number(expires), String(signature)))
      throw new DomainError('permission-denied', 'this address of a chunk was not signed here, or has ended');
    await sendChunk(this.catalog.signedReader, id, headers, reply);
  }
}

type Reader = Pick<CatalogService, 'chunkBytes' | 'openChunk'>;

async function sendChunk(reader: Reader, id: string, headers: RangeHeaders, reply: FastifyReply): Promise<void> {
  const bytes = await reader.chunkBytes(id);
  const etag = `"${id}"`;
  // The name is the content, so it never changes.
  reply.headers({
    etag,
    'accept-ranges': 'bytes',
    'cache-control': 'private, max-age=31536000, immutable',
    'content-type': 'application/octet-stream',
  });
  if (headers['if-none-match']?.includes(etag)) return void (await reply.code(304).send());
  const { range: asked, 'if-range': ifRange } = headers;
  const range = parseRange(ifRange === undefined || ifRange === etag ? asked : undefined, bytes);
  if (range.kind === 'unsatisfiable') {
    reply.header('content-range', `bytes */${bytes}`);
    throw new DomainError('out-of-range', `chunk ${id} has ${bytes} bytes, which ${asked} does not touch`);
  }
  const { from, to } = range.kind === 'part' ? range : { from: 0, to: bytes };
  if (range.kind === 'part') reply.code(206).header('content-range', `bytes ${from}-${to - 1}/${bytes}`);
  await reply.header('content-length', to - from).send(await reader.openChunk(id, from, to - from));
}
