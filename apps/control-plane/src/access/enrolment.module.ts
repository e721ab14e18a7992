import { Module } from '@nestjs/common';
import { Authority } from './authority.js';
import { JoinTokenController } from './join-token.controller.js';
import { JoinTokenRepository } from './join-token.repository.js';
import { JoinTokenResolver } from './join-token.resolver.js';
import { JoinTokenService } from './join-token.service.js';

/** Who may become a device: the certificate authority and the join tokens. */
@Module({
  controllers: [JoinTokenController],
  providers: [Authority, JoinTokenRepository, JoinTokenService, JoinTokenResolver],
  exports: [Authority, JoinTokenService],
})
export class EnrolmentModule {}
