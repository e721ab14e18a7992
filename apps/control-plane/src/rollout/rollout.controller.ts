import { Body, Controller, Get, HttpCode, Param, Post, Query } from '@nestjs/common';
import { FILTER_LENGTH_MAX } from '@matfleet/filter';
import { ApiBearerAuth, ApiBody, ApiCreatedResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { z } from 'zod';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { RolloutPlan } from '../domain/rollout-plan.js';
import { TARGET_STATES } from '../domain/rollout-target.js';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { RolloutDto, RolloutEventDto, RolloutTargetDto, toEventDto, toRolloutDto, toTargetDto } from './rollout.dto.js';
import { RolloutService } from './rollout.service.js';

export const RolloutName = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'a name has 1 to 63 of a-z, 0-9, ".", "_" and "-"');
const StartRollout = z.strictObject({
  modelVersionId: z.string().min(1).max(100),
  name: RolloutName.optional(),
  deviceIds: z.array(z.string().min(1).max(100)).min(1).max(100_000).optional(),
  filter: z.string().max(FILTER_LENGTH_MAX).optional(),
  plan: RolloutPlan.optional(),
});
const AbortRollout = z.strictObject({ rollBack: z.boolean().default(true), reason: z.string().min(1).max(500).default('aborted by an operator') });
const TargetQuery = z.object({
  state: z.enum(TARGET_STATES).optional(),
  /** From 1. */
  wave: z.coerce.number().int().min(1).optional(),
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
  after: z.string().max(200).optional(),
});

@ApiTags('rollouts')
@ApiBearerAuth()
@Controller('api/v1/rollouts')
export class RolloutController {
  constructor(private readonly rollouts: RolloutService) {}

  /** Brings these devices, or those that a filter means, by default the whole fleet, to a published model version, wave after wave as the plan says. */
  @Post()
  @ApiBody(bodySchema(StartRollout))
  @ApiCreatedResponse({ type: RolloutDto })
  async start(@Body(new ZodPipe(StartRollout)) body: z.infer<typeof StartRollout>, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.start(body, actor));
  }

  /** Newest first. */
  @Get()
  @ApiOkResponse({ type: [RolloutDto] })
  async list(): Promise<RolloutDto[]> {
    return (await this.rollouts.list()).map(toRolloutDto);
  }

  /** By id or by name. */
  @Get(':id')
  @ApiOkResponse({ type: RolloutDto })
  async get(@Param('id') id: string): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.get(id));
  }

  /** By name of the device, at most 1000 at once. */
  @Get(':id/targets')
  @ApiOkResponse({ type: [RolloutTargetDto] })
  async targets(
    @Param('id') id: string,
    @Query(new ZodPipe(TargetQuery)) { wave, ...query }: z.infer<typeof TargetQuery>,
  ): Promise<RolloutTargetDto[]> {
    return (await this.rollouts.targets(id, { ...query, ...(wave !== undefined && { wave: wave - 1 }) })).map(toTargetDto);
  }

  /** What happened, oldest first. */
  @Get(':id/events')
  @ApiOkResponse({ type: [RolloutEventDto] })
  async events(@Param('id') id: string): Promise<RolloutEventDto[]> {
    return (await this.rollouts.history(id)).map(toEventDto);
  }

  /** What would be done now, and why each device that waits does. Changes nothing. */
  @Get(':id/next')
  @ApiOkResponse({ description: 'moves of devices, changes of waves and of the rollout, and holds with their reasons; at most 1000 of each.' })
  async next(@Param('id') id: string): Promise<object> {
    const { moves, waves, state, holds, wakeAtMs } = await this.rollouts.foresee(id);
    return {
      moves: moves.slice(0, 1_000),
      waves: waves.map(({ wave, ...change }) => ({ wave: wave + 1, ...change })),
      state,
      holds: holds.slice(0, 1_000),
      looksAgainAt: wakeAtMs === null ? null : new Date(wakeAtMs).toISOString(),
    };
  }

  @Post(':id/pause')
  @HttpCode(200)
  @ApiOkResponse({ type: RolloutDto })
  async pause(@Param('id') id: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.pause(id, actor));
  }

  @Post(':id/resume')
  @HttpCode(200)
  @ApiOkResponse({ type: RolloutDto })
  async resume(@Param('id') id: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.resume(id, actor));
  }

  /** Devices go back to what they ran before, unless `rollBack` is false. Also of a rollout that has succeeded. */
  @Post(':id/abort')
  @HttpCode(200)
  @ApiBody(bodySchema(AbortRollout))
  @ApiOkResponse({ type: RolloutDto })
  async abort(
    @Param('id') id: string,
    @Body(new ZodPipe(AbortRollout)) body: z.infer<typeof AbortRollout>,
    @Caller() actor: Actor,
  ): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.abort(id, body, actor));
  }

  /** Lets the rollout begin, or the wave that waits for it. */
  @Post(':id/approve')
  @HttpCode(200)
  @ApiOkResponse({ type: RolloutDto })
  async approve(@Param('id') id: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.approve(id, actor));
  }
}

@ApiTags('devices')
@ApiBearerAuth()
@Controller('api/v1/devices/:id/rollouts')
export class DeviceRolloutController {
  constructor(private readonly rollouts: RolloutService) {}

  /** What rollouts did to the device, the newest first. */
  @Get()
  @ApiOkResponse({ type: [RolloutTargetDto] })
  async list(@Param('id') id: string): Promise<RolloutTargetDto[]> {
    return (await this.rollouts.ofDevice(id)).map(toTargetDto);
  }
}
