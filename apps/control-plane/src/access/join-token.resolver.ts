import { Args, Field, Int, Mutation, ObjectType, Resolver } from '@nestjs/graphql';
import { CreateJoinToken } from './join-token.controller.js';
import { JoinTokenService, type IssuedJoinToken } from './join-token.service.js';
import { ZodPipe } from '../zod.pipe.js';

@ObjectType('JoinToken')
class JoinTokenType implements IssuedJoinToken {
  @Field(() => String) token!: string;
  @Field(() => Date) expiresAt!: Date;
  @Field(() => Int) usesLeft!: number;
}

@Resolver(() => JoinTokenType)
export class JoinTokenResolver {
  constructor(private readonly tokens: JoinTokenService) {}

  @Mutation(() => JoinTokenType)
  createJoinToken(
    @Args('uses', { type: () => Int, nullable: true }) uses: number | null,
    @Args('ttlSeconds', { type: () => Int, nullable: true }) ttlSeconds: number | null,
  ): Promise<IssuedJoinToken> {
    return this.tokens.issue(new ZodPipe(CreateJoinToken).transform({ uses: uses ?? undefined, ttlSeconds: ttlSeconds ?? undefined }));
  }
}
