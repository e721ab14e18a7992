import { Args, Field, ID, Int, Mutation, ObjectType, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { LabelInput, LabelType } from '../fleet/device.types.js';
import { ZodPipe } from '../zod.pipe.js';
import { CreateJoinToken } from './join-token.controller.js';
import { JoinTokenService, type IssuedJoinToken, type JoinTokenView } from './join-token.service.js';

@ObjectType('JoinToken')
class JoinTokenType {
  @Field(() => ID) id!: string;
  @Field(() => String, { description: 'auto, request or preauthorised' }) mode!: string;
  @Field(() => [LabelType], { description: 'What its devices are labelled with.' }) labels!: LabelType[];
  @Field(() => Date) expiresAt!: Date;
  @Field(() => Int) usesLeft!: number;
  @Field(() => Date, { nullable: true }) revokedAt?: Date | null;
}

@ObjectType('IssuedJoinToken')
class IssuedJoinTokenType {
  @Field(() => ID) id!: string;
  @Field(() => String, { description: 'Shown once.' }) token!: string;
  @Field(() => String) mode!: string;
  @Field(() => Date) expiresAt!: Date;
  @Field(() => Int) usesLeft!: number;
}

@Resolver(() => JoinTokenType)
export class JoinTokenResolver {
  constructor(private readonly tokens: JoinTokenService) {}

  @Query(() => [JoinTokenType])
  joinTokens(): Promise<JoinTokenView[]> {
    return this.tokens.list();
  }

  @ResolveField(() => [LabelType])
  labels(@Parent() token: JoinTokenView): LabelType[] {
    return Object.entries(token.labels).map(([key, value]) => ({ key, value }));
  }

  @Mutation(() => IssuedJoinTokenType)
  createJoinToken(
    @Args('uses', { type: () => Int, nullable: true }) uses: number | null,
    @Args('ttlSeconds', { type: () => Int, nullable: true }) ttlSeconds: number | null,
    @Args('mode', { type: () => String, nullable: true }) mode: string | null,
    @Args('labels', { type: () => [LabelInput], nullable: true }) labels: LabelInput[] | null,
    @Caller() actor: Actor,
  ): Promise<IssuedJoinToken> {
    const given = { uses: uses ?? undefined, ttlSeconds: ttlSeconds ?? undefined, mode: mode ?? undefined, labels: labelsOf(labels) };
    return this.tokens.issue(new ZodPipe(CreateJoinToken).transform(given), actor);
  }

  @Mutation(() => JoinTokenType)
  revokeJoinToken(@Args('id', { type: () => ID }) id: string, @Caller() actor: Actor): Promise<JoinTokenView> {
    return this.tokens.revoke(id, actor);
  }
}

/** GraphQL has no map. */
export const labelsOf = (labels: readonly LabelInput[] | null) =>
  labels?.length ? Object.fromEntries(labels.map(({ key, value }) => [key, value])) : undefined;
