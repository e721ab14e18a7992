import { hotRowBytes as defaultHotRowBytes, type Chunk, type Manifest } from '@matfleet/model';
import { PleStore } from './ple-store.js';
import { TokenEmbedding } from './token-embedding.js';

/** What is looked up by token and stays on disk: the input embedding and the per-layer embeddings. Every slice of a model reads the same. */
export class EmbeddingTables {
  readonly tokens: TokenEmbedding;
  readonly ple: PleStore;

  /**
   * `chunks` holds those of every slice that will read. Rows used last are kept in at most `hotRowBytes`, as many of the one table as of the
   * other, since the same tokens are looked up in both.
   */
  constructor(manifest: Manifest, chunks: readonly Chunk[], storeDir: string, hotRowBytes = defaultHotRowBytes(chunks)) {
    const perToken = TokenEmbedding.rowBytes(manifest.config, chunks) + PleStore.rowBytes(manifest, chunks);
    const rows = Math.floor(hotRowBytes / perToken);
    this.tokens = new TokenEmbedding(manifest.config, chunks, storeDir, rows);
    try {
      this.ple = new PleStore(manifest, chunks, storeDir, rows);
    } catch (error) {
      this.tokens.close();
      throw error;
    }
  }

  /** Room of the hot rows of both. */
  get cacheBytes(): number {
    return this.tokens.cacheBytes + this.ple.cacheBytes;
  }

  close(): void {
    this.tokens.close();
    this.ple.close();
  }
}
