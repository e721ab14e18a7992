import { Body, Controller, Get, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { LabelGrant } from '../fleet/device-labels.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import type { EnrolledDevice } from './new-device.repository.js';
import { EnrolmentService } from './enrolment.service.js';
import type { EnrolmentView } from './identity.js';

export const KeyHash = z
  .string()
  .transform((text) => text.toLowerCase())
  .pipe(z.string().regex(/^[0-9a-f]{64}$/, 'the SHA-256 of the public key (SPKI, DER), 64 hex digits: `matfleet-agent --show-key` prints it'));
export const Preauthorise = z.object({ publicKeyHash: KeyHash, name: z.string().max(50).optional(), labels: LabelGrant.optional() });

@ApiTags('identity')
@Controller('api/v1/enrolments')
export class EnrolmentController {
  constructor(private readonly enrolments: EnrolmentService) {}

  @Get()
  @ApiOkResponse({ description: 'Keys that wait for an operator, were announced, or were rejected.' })
  list(): Promise<EnrolmentView[]> {
    return this.enrolments.list();
  }

  /** Announces a key: a device that has it is accepted as soon as it comes with a join token. */
  @Post()
  @ApiBody(bodySchema(Preauthorise))
  @ApiCreatedResponse({ description: 'The announced key.' })
  preauthorise(@Body(new ZodPipe(Preauthorise)) body: z.infer<typeof Preauthorise>, @Caller() actor: Actor): Promise<EnrolmentView> {
    return this.enrolments.preauthorise(body, actor);
  }

  /** Makes a device of what waits. */
  @Post(':id/accept')
  @HttpCode(200)
  @ApiOkResponse({ description: 'Id and name of the new device.' })
  accept(@Param('id') id: string, @Caller() actor: Actor): Promise<EnrolledDevice> {
    return this.enrolments.accept(id, actor);
  }

  @Post(':id/reject')
  @HttpCode(200)
  @ApiOkResponse({ description: 'The rejected key; it may be accepted later.' })
  reject(@Param('id') id: string, @Caller() actor: Actor): Promise<EnrolmentView> {
    return this.enrolments.reject(id, actor);
  }
}
