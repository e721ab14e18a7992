import { Args, ID, Query, Resolver, Subscription } from '@nestjs/graphql';
import { changes } from '../events/changes.js';
import { FleetEvents } from '../events/fleet-events.js';
import type { DeviceView } from './device.js';
import { DeviceType } from './device.types.js';
import { FleetService } from './fleet.service.js';

@Resolver(() => DeviceType)
export class DeviceResolver {
  constructor(
    private readonly fleet: FleetService,
    private readonly events: FleetEvents,
  ) {}

  @Query(() => [DeviceType])
  devices(): Promise<DeviceView[]> {
    return this.fleet.list();
  }

  @Query(() => DeviceType)
  device(@Args('id', { type: () => ID }) id: string): Promise<DeviceView> {
    return this.fleet.get(id);
  }

  @Subscription(() => DeviceType, { resolve: (device: DeviceView) => device })
  deviceChanged(): AsyncIterableIterator<DeviceView> {
    return changes(
      this.events.on('device-changed'),
      (event) => event.deviceId,
      (id) => this.fleet.get(id).catch(() => undefined),
    );
  }
}
