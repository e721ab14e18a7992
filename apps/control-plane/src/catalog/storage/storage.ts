import { join } from 'node:path';
import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import { CONFIG, type Config } from '../../config.js';
import { ChunkUrlSigner } from '../chunk-url.js';
import type { ChunkStorage } from './chunk-storage.js';
import { DiskStorage } from './disk-storage.js';

/** The storage that the configuration names. */
@Injectable()
export class Storage implements OnModuleInit {
  private opened: { readonly chunks: ChunkStorage; readonly urls: ChunkUrlSigner } | undefined;

  constructor(@Inject(CONFIG) private readonly config: Config) {}

  async onModuleInit(): Promise<void> {
    const chunks = await createStorage(this.config);
    await chunks.open();
    this.opened = { chunks, urls: await ChunkUrlSigner.open(join(this.config.dataDir, 'chunk-url-key')) };
  }

  get chunks(): ChunkStorage {
    return this.ready.chunks;
  }

  /** Signs addresses of this API, where the storage has none of its own. */
  get urls(): ChunkUrlSigner {
    return this.ready.urls;
  }

  private get ready() {
    if (!this.opened) throw new Error('the storage of chunks is used before the application has started');
    return this.opened;
  }
}

/** The S3 client is loaded only where it is used. */
async function createStorage({ dataDir, s3 }: Pick<Config, 'dataDir' | 's3'>): Promise<ChunkStorage> {
  if (!s3) return new DiskStorage(join(dataDir, 'chunks'));
  const { S3Storage } = await import('./s3-storage.js');
  return new S3Storage(s3);
}
