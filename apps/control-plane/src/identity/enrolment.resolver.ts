import { Args, Field, ID, Mutation, ObjectType, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { LabelInput, LabelType } from '../fleet/device.types.js';
import { ZodPipe } from '../zod.pipe.js';
import { Preauthorise } from './enrolment.controller.js';
import type { EnrolledDevice } from './new-device.repository.js';
import { EnrolmentService } from './enrolment.service.js';
import type { EnrolmentView } from './identity.js';
import { labelsOf } from './join-token.resolver.js';

@ObjectType('Enrolment')
class EnrolmentType {
  @Field(() => ID) id!: string;
  @Field(() => String) publicKeyHash!: string;
  @Field(() => String) name!: string;
  @Field(() => String, { description: 'pending, rejected or preauthorised' }) state!: string;
  @Field(() => [LabelType], { description: 'What the device will be labelled with.' }) labels!: LabelType[];
  @Field(() => Date) createdAt!: Date;
}

@ObjectType('EnrolledDevice')
class EnrolledDeviceType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
}

@Resolver(() => EnrolmentType)
export class EnrolmentResolver {
  constructor(private readonly enrolments: EnrolmentService) {}

  @Query(() => [EnrolmentType], { name: 'enrolments' })
  list(): Promise<EnrolmentView[]> {
    return this.enrolments.list();
  }

  @ResolveField(() => [LabelType])
  labels(@Parent() enrolment: EnrolmentView): LabelType[] {
    return Object.entries(enrolment.labels).map(([key, value]) => ({ key, value }));
  }

  @Mutation(() => EnrolmentType)
  preauthoriseKey(
    @Args('publicKeyHash', { type: () => String }) publicKeyHash: string,
    @Args('name', { type: () => String, nullable: true }) name: string | null,
    @Args('labels', { type: () => [LabelInput], nullable: true }) labels: LabelInput[] | null,
    @Caller() actor: Actor,
  ): Promise<EnrolmentView> {
    return this.enrolments.preauthorise(
      new ZodPipe(Preauthorise).transform({ publicKeyHash, name: name ?? undefined, labels: labelsOf(labels) }),
      actor,
    );
  }

  @Mutation(() => EnrolledDeviceType)
  acceptEnrolment(@Args('id', { type: () => ID }) id: string, @Caller() actor: Actor): Promise<EnrolledDevice> {
    return this.enrolments.accept(id, actor);
  }

  @Mutation(() => EnrolmentType)
  rejectEnrolment(@Args('id', { type: () => ID }) id: string, @Caller() actor: Actor): Promise<EnrolmentView> {
    return this.enrolments.reject(id, actor);
  }
}
