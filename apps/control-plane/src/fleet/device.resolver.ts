import { Args, ID, Int, Mutation, Parent, Query, ResolveField, Resolver, Subscription } from '@nestjs/graphql';
import { changes } from '../events/changes.js';
import { FleetEvents } from '../events/fleet-events.js';
import { ZodPipe } from '../zod.pipe.js';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import type { DeviceView } from './device.js';
import { filterable, parseFilter } from './device-filter.js';
import { LabelPatch } from './device-labels.js';
import { DeviceViews } from './device-views.js';
import { DeviceType, LabelInput, LabelType } from './device.types.js';
import { FleetService } from './fleet.service.js';

const FILTER = { type: () => String, nullable: true, description: 'Which devices, in CEL; default: all.' } as const;

@Resolver(() => DeviceType)
export class DeviceResolver {
  constructor(
    private readonly fleet: FleetService,
    private readonly views: DeviceViews,
    private readonly events: FleetEvents,
  ) {}

  @Query(() => [DeviceType], { description: 'By name, those after the name `after`; at most 1000.' })
  devices(
    @Args('filter', FILTER) filter?: string,
    @Args('first', { type: () => Int, nullable: true }) first?: number,
    @Args('after', { type: () => String, nullable: true }) after?: string,
  ): Promise<DeviceView[]> {
    return this.views.list({ filter: filter ?? undefined, limit: first ?? undefined, after: after ?? undefined });
  }

  @Query(() => DeviceType)
  device(@Args('id', { type: () => ID }) id: string): Promise<DeviceView> {
    return this.views.get(id);
  }

  @ResolveField(() => [LabelType])
  labels(@Parent() device: DeviceView): LabelType[] {
    return Object.entries(device.labels).map(([key, value]) => ({ key, value }));
  }

  @Mutation(() => DeviceType, { description: 'Changes these labels and leaves the others.' })
  async setDeviceLabels(
    @Args('id', { type: () => ID }) id: string,
    @Args('labels', { type: () => [LabelInput] }) labels: LabelInput[],
    @Caller() actor: Actor,
  ): Promise<DeviceView> {
    const patch = new ZodPipe(LabelPatch).transform(Object.fromEntries(labels.map(({ key, value }) => [key, value ?? null])));
    await this.fleet.patchLabels(id, patch, actor);
    return this.views.get(id);
  }

  @Subscription(() => DeviceType, { resolve: (device: DeviceView) => device })
  deviceChanged(@Args('filter', FILTER) filter?: string): AsyncIterableIterator<DeviceView> {
    const wanted = filter == null ? undefined : parseFilter(filter);
    return changes(
      this.events.here('device-changed'),
      (event) => event.deviceId,
      async (id) => {
        const device = await this.views.get(id).catch(() => undefined);
        return device && (!wanted || wanted.matches(filterable(device))) ? device : undefined;
      },
    );
  }
}
