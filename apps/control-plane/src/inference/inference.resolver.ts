import { Args, Field, Float, ID, InputType, Int, Mutation, ObjectType, Query, Resolver, Subscription } from '@nestjs/graphql';
import { filter } from 'rxjs';
import { changes } from '../events/changes.js';
import { FleetEvents } from '../events/fleet-events.js';
import { ZodPipe } from '../zod.pipe.js';
import { SubmitInference, type InferenceView } from './inference.js';
import { InferenceService } from './inference.service.js';

@ObjectType('Attempt')
class AttemptType {
  @Field(() => ID) id!: string;
  @Field(() => Int) ordinal!: number;
  @Field(() => String) deviceId!: string;
  @Field(() => String) deviceName!: string;
  @Field(() => String) modelVersionId!: string;
  @Field(() => String) sliceId!: string;
  @Field(() => String) state!: string;
  @Field(() => String) reason!: string;
  @Field(() => String, { nullable: true }) error!: string | null;
  @Field(() => Float, { nullable: true }) ttftMs!: number | null;
  @Field(() => Int, { nullable: true }) outputTokens!: number | null;
  @Field(() => Date) startedAt!: Date;
  @Field(() => Date, { nullable: true }) finishedAt!: Date | null;
}

@ObjectType('Inference')
class InferenceType {
  @Field(() => ID) id!: string;
  @Field(() => String) state!: string;
  @Field(() => String, { nullable: true }) task!: string | null;
  @Field(() => Float, { nullable: true }) qualityFloor!: number | null;
  @Field(() => Date) deadlineAt!: Date;
  @Field(() => String, { nullable: true, description: 'Grows while the inference runs.' }) answer!: string | null;
  @Field(() => String, { nullable: true }) error!: string | null;
  @Field(() => String, { nullable: true }) modelVersionId!: string | null;
  @Field(() => String, { nullable: true }) sliceId!: string | null;
  @Field(() => String, { nullable: true }) deviceId!: string | null;
  @Field(() => [AttemptType]) attempts!: AttemptType[];
  @Field(() => Date) createdAt!: Date;
  @Field(() => Date, { nullable: true }) finishedAt!: Date | null;
}

@InputType('MessageInput')
class MessageInput {
  @Field(() => String) role!: string;
  @Field(() => String) text!: string;
}

@InputType('SamplingInput')
class SamplingInput {
  @Field(() => Float, { nullable: true }) temperature?: number;
  @Field(() => Int, { nullable: true }) topK?: number;
  @Field(() => Float, { nullable: true }) topP?: number;
  @Field(() => Float, { nullable: true }) seed?: number;
}

@InputType('CreateInferenceInput')
class CreateInferenceInput {
  @Field(() => [MessageInput], { nullable: true }) messages?: MessageInput[];
  @Field(() => String, { nullable: true }) prompt?: string;
  @Field(() => String, { nullable: true }) task?: string;
  @Field(() => Float, { nullable: true }) qualityFloor?: number;
  @Field(() => Int, { nullable: true }) deadlineMs?: number;
  @Field(() => Int, { nullable: true }) maxTokens?: number;
  @Field(() => SamplingInput, { nullable: true }) sampling?: SamplingInput;
}

@Resolver(() => InferenceType)
export class InferenceResolver {
  constructor(
    private readonly service: InferenceService,
    private readonly events: FleetEvents,
  ) {}

  @Query(() => [InferenceType])
  inferences(): Promise<InferenceView[]> {
    return this.service.list();
  }

  @Query(() => InferenceType)
  inference(@Args('id', { type: () => ID }) id: string): Promise<InferenceView> {
    return this.service.get(id);
  }

  @Mutation(() => InferenceType)
  createInference(@Args('input', { type: () => CreateInferenceInput }) input: CreateInferenceInput): Promise<InferenceView> {
    return this.service.submit(new ZodPipe(SubmitInference).transform(withoutNulls(input)));
  }

  @Subscription(() => InferenceType, { resolve: (inference: InferenceView) => inference })
  inferenceChanged(@Args('id', { type: () => ID }) id: string): AsyncIterableIterator<InferenceView> {
    const own = this.events.here('inference-changed').pipe(filter((event) => event.inferenceId === id));
    return changes(
      own,
      (event) => event.inferenceId,
      (changed) => this.service.get(changed).catch(() => undefined),
    );
  }
}

/** GraphQL says null where JSON leaves out. */
const withoutNulls = (input: unknown): unknown => JSON.parse(JSON.stringify(input, (_key, value: unknown) => value ?? undefined)) as unknown;
