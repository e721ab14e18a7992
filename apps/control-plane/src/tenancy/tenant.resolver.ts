import { Args, Field, ID, Mutation, ObjectType, Query, Resolver } from '@nestjs/graphql';
import { Caller } from '../access/caller.js';
import type { Actor } from '../audit/audit.js';
import { ZodPipe } from '../zod.pipe.js';
import { CreateTenant, type TenantView } from './tenant.js';
import { TenantService } from './tenant.service.js';

@ObjectType('Tenant')
class TenantType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
  @Field(() => Date) createdAt!: Date;
}

@Resolver(() => TenantType)
export class TenantResolver {
  constructor(private readonly tenantService: TenantService) {}

  @Query(() => [TenantType], { description: 'All tenants, by id; for keys of the installation.' })
  tenants(): Promise<TenantView[]> {
    return this.tenantService.list();
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
