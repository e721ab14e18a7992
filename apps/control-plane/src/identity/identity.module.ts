import { Module } from '@nestjs/common';
import { FleetModule } from '../fleet/fleet.module.js';
import { Authority } from './authority.js';
import { EnrolmentController } from './enrolment.controller.js';
import { EnrolmentRepository } from './enrolment.repository.js';
import { EnrolmentResolver } from './enrolment.resolver.js';
import { EnrolmentService } from './enrolment.service.js';
import { IdentityController } from './identity.controller.js';
import { IdentityRepository } from './identity.repository.js';
import { IdentityResolver } from './identity.resolver.js';
import { IdentityService } from './identity.service.js';
import { JoinTokenController } from './join-token.controller.js';
import { JoinTokenRepository } from './join-token.repository.js';
import { JoinTokenResolver } from './join-token.resolver.js';
import { JoinTokenService } from './join-token.service.js';
import { NewDeviceRepository } from './new-device.repository.js';

/** Who is a device of this fleet: certificate authority, join tokens, enrolment, keys, revocation, tombstones. */
@Module({
  imports: [FleetModule],
  controllers: [JoinTokenController, EnrolmentController, IdentityController],
  providers: [
    Authority,
    JoinTokenRepository,
    JoinTokenService,
    JoinTokenResolver,
    EnrolmentRepository,
    NewDeviceRepository,
    EnrolmentService,
    EnrolmentResolver,
    IdentityRepository,
    IdentityService,
    IdentityResolver,
  ],
  exports: [Authority, EnrolmentService, IdentityService],
})
export class IdentityModule {}
