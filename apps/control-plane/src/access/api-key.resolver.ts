import { Args, Field, ID, InputType, Int, Mutation, ObjectType, Query, Resolver } from '@nestjs/graphql';
import { ZodPipe } from '../zod.pipe.js';
import { type ApiKeyView, CreateApiKey, type IssuedApiKey } from './api-key.js';
import { ApiKeyService } from './api-key.service.js';
import { CallerInfo, type CallerIdentity } from './caller.js';

@ObjectType('ApiKey')
class ApiKeyType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
  @Field(() => String, { description: 'viewer, operator, publisher or admin' }) role!: string;
  @Field(() => String, { nullable: true, description: 'Which devices alone it means, in CEL; null: all.' }) devices!: string | null;
  @Field(() => Boolean) installation!: boolean;
  @Field(() => Date) createdAt!: Date;
  @Field(() => Date, { nullable: true }) expiresAt!: Date | null;
  @Field(() => Date, { nullable: true }) revokedAt!: Date | null;
  @Field(() => Date, { nullable: true, description: 'To the minute.' }) lastUsedAt!: Date | null;
}

@ObjectType('IssuedApiKey')
class IssuedApiKeyType extends ApiKeyType {
  @Field(() => String, { description: 'Shown once.' }) secret!: string;
}

@InputType('CreateApiKeyInput')
class CreateApiKeyInput {
  @Field(() => String) name!: string;
  @Field(() => String) role!: string;
  @Field(() => String, { nullable: true }) devices?: string;
  @Field(() => Int, { nullable: true }) ttlSeconds?: number;
  @Field(() => Boolean, { nullable: true }) installation?: boolean;
}

@Resolver(() => ApiKeyType)
export class ApiKeyResolver {
  constructor(private readonly keys: ApiKeyService) {}

  @Query(() => [ApiKeyType])
  apiKeys(): Promise<ApiKeyView[]> {
    return this.keys.list();
  }

  @Mutation(() => IssuedApiKeyType)
  createApiKey(
    @Args('input', { type: () => CreateApiKeyInput }) input: CreateApiKeyInput,
    @CallerInfo() caller: CallerIdentity,
  ): Promise<IssuedApiKey> {
    const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== null && value !== undefined));
    return this.keys.issue(new ZodPipe(CreateApiKey).transform(given), caller);
  }

  @Mutation(() => ApiKeyType)
  revokeApiKey(@Args('id', { type: () => ID }) id: string, @CallerInfo() { actor }: CallerIdentity): Promise<ApiKeyView> {
    return this.keys.revoke(id, actor);
  }
}
