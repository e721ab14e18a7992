import { Module } from '@nestjs/common';
import { TrustModule } from '../trust/trust.module.js';
import { CatalogService } from './catalog.service.js';
import { ChunkController } from './chunk.controller.js';
import { ModelController } from './model.controller.js';
import { ModelRepository } from './model.repository.js';
import { ModelResolver, ModelSliceResolver } from './model.resolver.js';

@Module({
  imports: [TrustModule],
  controllers: [ModelController, ChunkController],
  providers: [CatalogService, ModelRepository, ModelResolver, ModelSliceResolver],
  exports: [CatalogService],
})
export class CatalogModule {}
