import { Args, Field, ID, Mutation, ObjectType, Query, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { ZodPipe } from '../zod.pipe.js';
import { Decommission, OfferKey, Revoke } from './identity.controller.js';
import type { DeviceKeyView, StandingView, TombstoneView } from './identity.js';
import { IdentityService } from './identity.service.js';

@ObjectType('Standing')
class StandingType {
  @Field(() => ID) deviceId!: string;
  @Field(() => String) name!: string;
  @Field(() => String, { description: 'accepted, quarantined or revoked' }) standing!: string;
  @Field(() => String, { nullable: true }) reason!: string | null;
}

@ObjectType('DeviceKey')
class DeviceKeyType {
  @Field(() => String) publicKeyHash!: string;
  @Field(() => String, { description: 'accepted, offered or retired' }) state!: string;
  @Field(() => Date, { nullable: true }) createdAt!: Date | null;
  @Field(() => Date, { nullable: true, description: 'When a retired key was first seen in use again.' }) reusedAt!: Date | null;
}

@ObjectType('Tombstone')
class TombstoneType {
  @Field(() => ID) deviceId!: string;
  @Field(() => String) name!: string;
  @Field(() => String) reason!: string;
  @Field(() => Boolean) wipe!: boolean;
  @Field(() => Date, { nullable: true }) wipedAt!: Date | null;
  @Field(() => Date) createdAt!: Date;
}

@Resolver(() => StandingType)
export class IdentityResolver {
  constructor(private readonly identities: IdentityService) {}

  @Query(() => [DeviceKeyType])
  deviceKeys(@Args('deviceId', { type: () => ID }) deviceId: string): Promise<DeviceKeyView[]> {
    return this.identities.keys(deviceId);
  }

  @Query(() => [TombstoneType])
  tombstones(): Promise<TombstoneView[]> {
    return this.identities.tombstones();
  }

  @Mutation(() => StandingType)
  revokeDevice(
    @Args('id', { type: () => ID }) id: string,
    @Args('reason', { type: () => String }) reason: string,
    @Caller() actor: Actor,
  ): Promise<StandingView> {
    return this.identities.revoke(id, new ZodPipe(Revoke).transform({ reason }).reason, actor);
  }

  @Mutation(() => StandingType)
  releaseDevice(@Args('id', { type: () => ID }) id: string, @Caller() actor: Actor): Promise<StandingView> {
    return this.identities.release(id, actor);
  }

  @Mutation(() => TombstoneType)
  decommissionDevice(
    @Args('id', { type: () => ID }) id: string,
    @Args('reason', { type: () => String }) reason: string,
    @Args('wipe', { type: () => Boolean, defaultValue: false }) wipe: boolean,
    @Caller() actor: Actor,
  ): Promise<TombstoneView> {
    return this.identities.decommission(id, new ZodPipe(Decommission).transform({ reason, wipe }), actor);
  }

  @Mutation(() => [DeviceKeyType])
  offerDeviceKey(
    @Args('deviceId', { type: () => ID }) deviceId: string,
    @Args('publicKeyHash', { type: () => String }) publicKeyHash: string,
    @Caller() actor: Actor,
  ): Promise<DeviceKeyView[]> {
    return this.identities.offerKey(deviceId, new ZodPipe(OfferKey).transform({ publicKeyHash }).publicKeyHash, actor);
  }
}
