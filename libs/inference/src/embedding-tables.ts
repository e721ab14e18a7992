import type { Chunk, Manifest } from '@matfleet/model';
import { PleStore } from './ple-store.js';
import { TokenEmbedding } from './token-embedding.js';

const DEFAULT_PLE_CACHE_ROWS = 1024;

/** What is looked up by token and stays on disk: the input embedding and the per-layer embeddings. Every slice of a model reads the same. */
export class EmbeddingTables {
  readonly tokens: TokenEmbedding;
  readonly ple: PleStore;

  /** `chunks` holds those of every slice that will read. */
  constructor({ config, precision }: Manifest, chunks: readonly Chunk[], storeDir: string, pleCacheRows = DEFAULT_PLE_CACHE_ROWS) {
    this.tokens = new TokenEmbedding(config, chunks, storeDir);
    this.ple = new PleStore(config, precision, chunks, storeDir, pleCacheRows);
  }

  close(): void {
    this.tokens.close();
    this.ple.close();
  }
}
