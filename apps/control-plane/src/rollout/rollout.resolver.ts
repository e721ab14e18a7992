import { Args, ID, Int, Mutation, Parent, Query, ResolveField, Resolver, Subscription } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import type { RolloutPlanInput } from '../domain/rollout-plan.js';
import { TARGET_STATES, type TargetState } from '../domain/rollout-target.js';
import { DomainError } from '../errors.js';
import { changes } from '../events/changes.js';
import { FleetEvents } from '../events/fleet-events.js';
import { RolloutDto, RolloutEventDto, RolloutTargetDto, toEventDto, toRolloutDto, toTargetDto } from './rollout.dto.js';
import { RolloutService } from './rollout.service.js';

const id = { type: () => ID };

@Resolver(() => RolloutDto)
export class RolloutResolver {
  constructor(
    private readonly rollouts: RolloutService,
    private readonly fleetEvents: FleetEvents,
  ) {}

  @Query(() => [RolloutDto], { name: 'rollouts', description: 'Newest first.' })
  async list(): Promise<RolloutDto[]> {
    return (await this.rollouts.list()).map(toRolloutDto);
  }

  @Query(() => RolloutDto, { description: 'By id or by name.' })
  async rollout(@Args('id', id) rolloutId: string): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.get(rolloutId));
  }

  @Query(() => [RolloutTargetDto], { description: 'What rollouts did to the device, the newest first.' })
  async deviceRollouts(@Args('deviceId', id) deviceId: string): Promise<RolloutTargetDto[]> {
    return (await this.rollouts.ofDevice(deviceId)).map(toTargetDto);
  }

  @ResolveField(() => [RolloutTargetDto], { description: 'By name of the device, at most 1000.' })
  async targets(
    @Parent() rollout: RolloutDto,
    @Args('state', { type: () => String, nullable: true }) state?: string,
    @Args('wave', { type: () => Int, nullable: true, description: 'From 1.' }) wave?: number,
    @Args('limit', { type: () => Int, defaultValue: 100 }) limit?: number,
    @Args('after', { type: () => String, nullable: true, description: 'Name of the last device of the page before.' }) after?: string,
  ): Promise<RolloutTargetDto[]> {
    const query = { state: stateOf(state), limit, after: after ?? undefined, ...(wave != null && { wave: wave - 1 }) };
    return (await this.rollouts.targets(rollout.id, query)).map(toTargetDto);
  }

  @ResolveField(() => [RolloutEventDto], { description: 'What happened, oldest first.' })
  async events(@Parent() rollout: RolloutDto): Promise<RolloutEventDto[]> {
    return (await this.rollouts.history(rollout.id)).map(toEventDto);
  }

  @Mutation(() => RolloutDto, {
    description:
      'Brings these devices, or those of a filter, by default the whole fleet, to a published model version, wave after wave as the plan says.',
  })
  async startRollout(
    @Args('modelVersionId', id) modelVersionId: string,
    @Caller() actor: Actor,
    @Args('name', { type: () => String, nullable: true }) name?: string,
    @Args('deviceIds', { type: () => [ID], nullable: true }) deviceIds?: string[],
    @Args('filter', { type: () => String, nullable: true, description: 'Instead of deviceIds, in CEL.' }) filter?: string,
    @Args('planJson', { type: () => String, nullable: true, description: 'As in REST.' }) planJson?: string,
  ): Promise<RolloutDto> {
    const wanted = { modelVersionId, name: name ?? undefined, deviceIds: deviceIds ?? undefined, filter: filter ?? undefined };
    return toRolloutDto(await this.rollouts.start({ ...wanted, plan: planOf(planJson) }, actor));
  }

  @Mutation(() => RolloutDto)
  async pauseRollout(@Args('id', id) rolloutId: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.pause(rolloutId, actor));
  }

  @Mutation(() => RolloutDto)
  async resumeRollout(@Args('id', id) rolloutId: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.resume(rolloutId, actor));
  }

  @Mutation(() => RolloutDto, { description: 'Devices go back to what they ran before, unless rollBack is false.' })
  async abortRollout(
    @Args('id', id) rolloutId: string,
    @Caller() actor: Actor,
    @Args('rollBack', { type: () => Boolean, defaultValue: true }) rollBack: boolean,
    @Args('reason', { type: () => String, defaultValue: 'aborted by an operator' }) reason: string,
  ): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.abort(rolloutId, { rollBack, reason: reason.slice(0, 500) }, actor));
  }

  @Mutation(() => RolloutDto, { description: 'Lets the rollout begin, or the wave that waits for it.' })
  async approveRollout(@Args('id', id) rolloutId: string, @Caller() actor: Actor): Promise<RolloutDto> {
    return toRolloutDto(await this.rollouts.approve(rolloutId, actor));
  }

  @Subscription(() => RolloutDto, { resolve: (rollout: RolloutDto) => rollout })
  rolloutChanged(): AsyncIterableIterator<RolloutDto> {
    return changes(
      this.fleetEvents.here('rollout-changed'),
      (event) => event.rolloutId,
      async (rolloutId) => {
        const rollout = await this.rollouts.find(rolloutId);
        return rollout && toRolloutDto(rollout);
      },
    );
  }
}

function stateOf(text: string | null | undefined): TargetState | undefined {
  if (text == null) return undefined;
  const state = TARGET_STATES.find((known) => known === text);
  if (!state) throw new DomainError('invalid-argument', `state: ${JSON.stringify(text.slice(0, 80))} is none of ${TARGET_STATES.join(', ')}`);
  return state;
}

function planOf(json: string | null | undefined): RolloutPlanInput | undefined {
  if (json == null) return undefined;
  try {
    return JSON.parse(json) as RolloutPlanInput;
  } catch {
    throw new DomainError('invalid-argument', `planJson (${json.length} characters) is not JSON`);
  }
}
