import { Args, ID, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { CatalogService } from './catalog.service.js';
import { ModelSliceDto, ModelVersionDto, TaskQualityDto, toModelVersionDto } from './model.dto.js';

@Resolver(() => ModelVersionDto)
export class ModelResolver {
  constructor(private readonly catalog: CatalogService) {}

  @Query(() => [ModelVersionDto], { description: 'Published and not, newest first.' })
  async models(): Promise<ModelVersionDto[]> {
    return (await this.catalog.list()).map(toModelVersionDto);
  }

  @Query(() => ModelVersionDto)
  async model(@Args('id', { type: () => ID }) id: string): Promise<ModelVersionDto> {
    return toModelVersionDto(await this.catalog.version(id));
  }
}

@Resolver(() => ModelSliceDto)
export class ModelSliceResolver {
  @ResolveField(() => [TaskQualityDto], { description: 'Quality by task, where it was measured.' })
  tasks(@Parent() slice: ModelSliceDto): TaskQualityDto[] {
    return Object.entries(slice.tasks ?? {}).map(([task, quality]) => ({ task, quality }));
  }
}
