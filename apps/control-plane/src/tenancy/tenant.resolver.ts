import { Args, Field, Float, ID, InputType, Int, Mutation, ObjectType, Query, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { ZodPipe } from '../zod.pipe.js';
import { QuotaPatch } from './quota.js';
import { CreateTenant, type TenantView } from './tenant.js';
import { TenantService } from './tenant.service.js';

@ObjectType('Tenant')
class TenantType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
  @Field(() => Date) createdAt!: Date;
  @Field(() => Int, { nullable: true }) devicesMax!: number | null;
  @Field(() => Float, { nullable: true, description: 'Of all chunks that its manifests name.' }) modelBytesMax!: number | null;
  @Field(() => Int, { nullable: true, description: 'That wait or run.' }) queuedInferencesMax!: number | null;
  @Field(() => Int, { nullable: true, description: 'At one replica.' }) apiCallsPerMinuteMax!: number | null;
}

@InputType('QuotasInput')
class QuotasInput {
  @Field(() => Int, { nullable: true }) devicesMax?: number | null;
  @Field(() => Float, { nullable: true }) modelBytesMax?: number | null;
  @Field(() => Int, { nullable: true }) queuedInferencesMax?: number | null;
  @Field(() => Int, { nullable: true }) apiCallsPerMinuteMax?: number | null;
}

@Resolver(() => TenantType)
export class TenantResolver {
  constructor(private readonly tenantService: TenantService) {}

  @Query(() => [TenantType], { description: 'All tenants, by id; for keys of the installation.' })
  tenants(): Promise<TenantView[]> {
    return this.tenantService.list();
  }

  @Mutation(() => TenantType, { description: 'Null takes a limit away, what is left out stays.' })
  setTenantQuotas(
    @Args('id', { type: () => ID }) id: string,
    @Args('quotas', { type: () => QuotasInput }) quotas: QuotasInput,
    @Caller() actor: Actor,
  ): Promise<TenantView> {
    return this.tenantService.setQuotas(id, new ZodPipe(QuotaPatch).transform({ ...quotas }), actor);
  }

  @Mutation(() => TenantType)
  createTenant(
    @Args('id', { type: () => ID }) id: string,
    @Args('name', { type: () => String, nullable: true }) name: string | null,
    @Caller() actor: Actor,
  ): Promise<TenantView> {
    return this.tenantService.create(new ZodPipe(CreateTenant).transform({ id, name: name ?? undefined }), actor);
  }
}
