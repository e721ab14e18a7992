import { Global, Module } from '@nestjs/common';
import { HealthController } from './health.controller.js';
import { Readiness } from './health.js';
import { MetricsController } from './metrics.controller.js';
import { Metrics } from './telemetry.js';

@Global()
@Module({ controllers: [HealthController, MetricsController], providers: [Metrics, Readiness], exports: [Metrics, Readiness] })
export class TelemetryModule {}
