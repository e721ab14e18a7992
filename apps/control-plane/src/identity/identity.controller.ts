import { Body, Controller, Delete, Get, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBody, ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { KeyHash } from './enrolment.controller.js';
import type { DeviceKeyView, StandingView, TombstoneView } from './identity.js';
import { IdentityService } from './identity.service.js';

export const Revoke = z.object({ reason: z.string().min(1).max(500) });
export const Decommission = z.object({ reason: z.string().min(1).max(500), wipe: z.boolean().default(false) });
export const OfferKey = z.object({ publicKeyHash: KeyHash });

@ApiTags('identity')
@Controller('api/v1')
export class IdentityController {
  constructor(private readonly identities: IdentityService) {}

  /** Refuses the device from now on and ends its session; it keeps its place in the fleet until it is released or decommissioned. */
  @Post('devices/:id/revoke')
  @HttpCode(200)
  @ApiBody(bodySchema(Revoke))
  @ApiOkResponse({ description: 'The standing it has now.' })
  revoke(@Param('id') id: string, @Body(new ZodPipe(Revoke)) { reason }: z.infer<typeof Revoke>, @Caller() actor: Actor): Promise<StandingView> {
    return this.identities.revoke(id, reason, actor);
  }

  /** Lets a device in again that is in quarantine or was revoked. */
  @Post('devices/:id/release')
  @HttpCode(200)
  @ApiOkResponse({ description: 'The standing it has now.' })
  release(@Param('id') id: string, @Caller() actor: Actor): Promise<StandingView> {
    return this.identities.release(id, actor);
  }

  /** Takes the device out of the fleet for good; with `wipe` it also removes its models and keys, now or when it next comes by. */
  @Post('devices/:id/decommission')
  @HttpCode(200)
  @ApiBody(bodySchema(Decommission))
  @ApiOkResponse({ description: 'What is left of it.' })
  decommission(
    @Param('id') id: string,
    @Body(new ZodPipe(Decommission)) body: z.infer<typeof Decommission>,
    @Caller() actor: Actor,
  ): Promise<TombstoneView> {
    return this.identities.decommission(id, body, actor);
  }

  /** The same as decommission without a wipe. */
  @Delete('devices/:id')
  @HttpCode(204)
  @ApiNoContentResponse({ description: 'The device is removed.' })
  async remove(@Param('id') id: string, @Caller() actor: Actor): Promise<void> {
    await this.identities.decommission(id, { wipe: false, reason: 'removed by an operator' }, actor);
  }

  @Get('devices/:id/keys')
  @ApiOkResponse({ description: 'The accepted key, then offered and retired ones, newest first.' })
  keys(@Param('id') id: string): Promise<DeviceKeyView[]> {
    return this.identities.keys(id);
  }

  /** Lets the device come with another key, for example after its disk was replaced: from the first use on it is the accepted one. */
  @Post('devices/:id/keys')
  @ApiBody(bodySchema(OfferKey))
  @ApiCreatedResponse({ description: 'All keys of the device.' })
  offerKey(@Param('id') id: string, @Body(new ZodPipe(OfferKey)) body: z.infer<typeof OfferKey>, @Caller() actor: Actor): Promise<DeviceKeyView[]> {
    return this.identities.offerKey(id, body.publicKeyHash, actor);
  }

  @Get('tombstones')
  @ApiOkResponse({ description: 'Decommissioned devices, newest first.' })
  tombstones(): Promise<TombstoneView[]> {
    return this.identities.tombstones();
  }
}
