import { Module } from '@nestjs/common';
import { DeviceController } from './device.controller.js';
import { DeviceFilterRepository } from './device-filter.repository.js';
import { DeviceLinks } from './device-links.js';
import { DeviceRepository } from './device.repository.js';
import { DeviceResolver } from './device.resolver.js';
import { FleetMetrics } from './fleet-metrics.js';
import { FleetService } from './fleet.service.js';

@Module({
  controllers: [DeviceController],
  providers: [DeviceRepository, DeviceFilterRepository, DeviceLinks, FleetService, FleetMetrics, DeviceResolver],
  exports: [FleetService, DeviceLinks],
})
export class FleetModule {}
