import { Module } from '@nestjs/common';
import { TrustModule } from '../trust/trust.module.js';
import { CatalogService } from './catalog.service.js';
import { ChunkController, SignedChunkController } from './chunk.controller.js';
import { GarbageRepository } from './garbage.repository.js';
import { GarbageService } from './garbage.service.js';
import { ModelController } from './model.controller.js';
import { ModelRepository } from './model.repository.js';
import { Storage } from './storage/storage.js';
import { ModelResolver, ModelSliceResolver } from './model.resolver.js';

@Module({
  imports: [TrustModule],
  controllers: [ModelController, ChunkController, SignedChunkController],
  providers: [Storage, CatalogService, GarbageService, GarbageRepository, ModelRepository, ModelResolver, ModelSliceResolver],
  exports: [CatalogService],
})
export class CatalogModule {}
