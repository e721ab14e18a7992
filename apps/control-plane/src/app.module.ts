import { type DynamicModule, Module } from '@nestjs/common';
import { AccessModule } from './access/access.module.js';
import { AssignmentModule } from './assignment/assignment.module.js';
import { AuditModule } from './audit/audit.module.js';
import { CatalogModule } from './catalog/catalog.module.js';
import type { Config } from './config.js';
import { ConfigModule } from './config.module.js';
import { DatabaseModule } from './database/database.module.js';
import { EventsModule } from './events/events.module.js';
import { FleetModule } from './fleet/fleet.module.js';
import { GatewayModule } from './gateway/gateway.module.js';
import { GraphqlModule } from './graphql.module.js';
import { IdentityModule } from './identity/identity.module.js';
import { InferenceModule } from './inference/inference.module.js';
import { QueueModule } from './queue/queue.module.js';
import { ReplicasModule } from './replicas/replicas.module.js';
import { RolloutModule } from './rollout/rollout.module.js';
import { TenancyModule } from './tenancy/tenancy.module.js';
import { TelemetryModule } from './telemetry.module.js';
import { TimelineModule } from './timeline/timeline.module.js';
import { TrustModule } from './trust/trust.module.js';

@Module({})
export class AppModule {
  /** What lies under the features, and the features: the product's table of contents. */
  static forRoot(config: Config, databaseUrl: string): DynamicModule {
    return {
      module: AppModule,
      imports: [
        ConfigModule.forRoot(config),
        DatabaseModule.forRoot(databaseUrl),
        EventsModule,
        TelemetryModule,
        ReplicasModule,
        TimelineModule,
        QueueModule.forRoot({ databaseUrl, redisUrl: config.redisUrl }),
        GraphqlModule,
        TenancyModule,
        AccessModule,
        AuditModule,
        IdentityModule,
        TrustModule,
        CatalogModule,
        FleetModule,
        AssignmentModule,
        RolloutModule,
        InferenceModule,
        GatewayModule,
      ],
    };
  }
}
