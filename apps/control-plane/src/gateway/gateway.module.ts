import { Module } from '@nestjs/common';
import { AssignmentModule } from '../assignment/assignment.module.js';
import { CatalogModule } from '../catalog/catalog.module.js';
import { FleetModule } from '../fleet/fleet.module.js';
import { IdentityModule } from '../identity/identity.module.js';
import { InferenceModule } from '../inference/inference.module.js';
import { TrustModule } from '../trust/trust.module.js';
import { GatewayServer } from './gateway.server.js';

/** Everything that talks to devices. It calls features; what they want sent reaches it through the device links. */
@Module({ imports: [IdentityModule, FleetModule, AssignmentModule, CatalogModule, TrustModule, InferenceModule], providers: [GatewayServer] })
export class GatewayModule {}
