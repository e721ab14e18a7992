import { Args, Field, Float, ID, Int, Mutation, ObjectType, Query, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import type { ExplainedAssignment } from './assignment.repository.js';
import { AssignmentService } from './assignment.service.js';

@ObjectType('Candidate')
class CandidateType {
  @Field(() => String) sliceId!: string;
  @Field(() => String) name!: string;
  @Field(() => Float, { nullable: true }) quality!: number | null;
  @Field(() => Float) totalBytes!: number;
  @Field(() => Float) predictedInterTokenMs!: number;
  @Field(() => Boolean) fits!: boolean;
  @Field(() => Boolean) meetsLatency!: boolean;
  @Field(() => Boolean) chosen!: boolean;
  @Field(() => String) why!: string;
}

@ObjectType('Explanation')
class ExplanationType {
  @Field(() => String) cause!: string;
  @Field(() => Float) memoryLimitBytes!: number;
  @Field(() => String) memoryLimitFrom!: string;
  @Field(() => Int) contextTokens!: number;
  @Field(() => Float) targetInterTokenMs!: number;
  @Field(() => Float) latencyCorrection!: number;
  @Field(() => Float) memoryBandwidthBytesPerSecond!: number;
  @Field(() => [CandidateType]) candidates!: CandidateType[];
}

@ObjectType('Assignment')
class AssignmentType {
  @Field(() => ID) deviceId!: string;
  @Field(() => Float) generation!: number;
  @Field(() => String) modelVersionId!: string;
  @Field(() => String) sliceId!: string;
  @Field(() => Int) contextTokens!: number;
  @Field(() => String) reason!: string;
  @Field(() => ExplanationType) explanation!: ExplanationType;
  @Field(() => String, { nullable: true }) rolloutId!: string | null;
  @Field(() => String, { description: 'at-once, when-idle, or hold: the device only fetches.' }) changeOver!: string;
  @Field(() => Date) createdAt!: Date;
}

@Resolver(() => AssignmentType)
export class AssignmentResolver {
  constructor(private readonly assignmentService: AssignmentService) {}

  @Query(() => [AssignmentType])
  assignments(@Args('deviceId', { type: () => ID }) deviceId: string): Promise<ExplainedAssignment[]> {
    return this.assignmentService.history(deviceId);
  }

  @Mutation(() => AssignmentType, { nullable: true })
  async evaluateDevice(@Args('id', { type: () => ID }) id: string, @Caller() actor: Actor): Promise<ExplainedAssignment | null> {
    await this.assignmentService.evaluateFor(actor, id);
    return (await this.assignmentService.history(id))[0] ?? null;
  }
}
