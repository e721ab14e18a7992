import { Module } from '@nestjs/common';
import { DeviceController } from './device.controller.js';
import { DeviceFilterRepository } from './device-filter.repository.js';
import { DeviceLinks } from './device-links.js';
import { DeviceRepository } from './device.repository.js';
import { DeviceResolver } from './device.resolver.js';
import { DeviceViews } from './device-views.js';
import { Elsewhere } from './elsewhere.js';
import { FleetMetrics } from './fleet-metrics.js';
import { FleetService } from './fleet.service.js';
import { Latency } from './latency.js';
import { Leases } from './leases.js';

@Module({
  controllers: [DeviceController],
  providers: [
    ...[DeviceRepository, DeviceFilterRepository, DeviceLinks, Leases, Elsewhere, Latency, DeviceViews],
    ...[FleetService, FleetMetrics, DeviceResolver],
  ],
  exports: [FleetService, DeviceLinks, DeviceViews, Elsewhere, Latency, Leases],
})
export class FleetModule {}
