import { Args, ID, Mutation, Query, Resolver, Subscription } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { changes } from '../events/changes.js';
import { FleetEvents } from '../events/fleet-events.js';
import { RolloutService } from './rollout.service.js';
import { toUpdateDto, UpdateDto } from './update.dto.js';

@Resolver(() => UpdateDto)
export class UpdateResolver {
  constructor(
    private readonly rollout: RolloutService,
    private readonly events: FleetEvents,
  ) {}

  @Query(() => [UpdateDto], { description: 'Newest first.' })
  async updates(): Promise<UpdateDto[]> {
    return (await this.rollout.list()).map(toUpdateDto);
  }

  @Query(() => UpdateDto)
  async update(@Args('id', { type: () => ID }) id: string): Promise<UpdateDto> {
    return toUpdateDto(await this.rollout.get(id));
  }

  @Mutation(() => UpdateDto, { description: 'Brings these devices, or those of a filter, by default the whole fleet, to a published model version.' })
  async createUpdate(
    @Caller() actor: Actor,
    @Args('modelVersionId', { type: () => ID }) modelVersionId: string,
    @Args('deviceIds', { type: () => [ID], nullable: true }) deviceIds?: string[],
    @Args('filter', { type: () => String, nullable: true, description: 'Instead of deviceIds: those that it means now, in CEL.' }) filter?: string,
  ): Promise<UpdateDto> {
    return toUpdateDto(await this.rollout.create({ modelVersionId, deviceIds: deviceIds ?? undefined, filter: filter ?? undefined }, actor));
  }

  @Subscription(() => UpdateDto, { resolve: (update: UpdateDto) => update })
  updateChanged(): AsyncIterableIterator<UpdateDto> {
    return changes(
      this.events.here('update-changed'),
      (event) => event.updateId,
      async (id) => {
        const update = await this.rollout.find(id);
        return update && toUpdateDto(update);
      },
    );
  }
}
