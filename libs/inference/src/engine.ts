import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { prefillChunkTokens, sliceById, type Manifest } from '@matfleet/model';
import { Decoder } from './decoder.js';
import type { ChatMessage, Engine, EngineStats, GenerateOptions, GenerateResult, OpenEngineOptions, TokenEvent } from './engine-api.js';
import { generate } from './generate.js';
import type { KvCache } from './kv-cache.js';
import { readPrepared } from './prepared.js';
import { loadTokenizer, type Tokenizer } from './tokenizer.js';

const DEFAULT_CONTEXT_TOKENS = 2048;

/** Loads one slice from a chunk store. Throws when a chunk is missing or the slice does not exist; the chunks' hashes are the caller's to check. */
export async function openEngine(options: OpenEngineOptions): Promise<Engine> {
  const { manifest, storeDir, signal } = options;
  const slice = sliceById(manifest, options.sliceId);
  const limit = manifest.config.maxPositionEmbeddings;
  const contextTokens = options.contextTokens ?? Math.min(limit, DEFAULT_CONTEXT_TOKENS);
  if (!Number.isInteger(contextTokens) || contextTokens < 1 || contextTokens > limit)
    throw new Error(`a context of ${contextTokens} tokens; model ${manifest.name} takes 1 to ${limit}`);
  signal?.throwIfAborted();
  const tokenizer = await readTokenizer(manifest, storeDir);
  const prepared = await readPrepared(manifest, storeDir, slice);
  const decoder = await Decoder.open(manifest, storeDir, slice, {
    ...(prepared && { prepared }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.pleCacheRows === undefined ? {} : { pleCacheRows: options.pleCacheRows }),
  });
  if (signal?.aborted) {
    await decoder.close();
    signal.throwIfAborted();
  }
  return new SliceEngine(slice.id, contextTokens, decoder, tokenizer, manifest.name);
}

class SliceEngine implements Engine {
  private readonly cache: KvCache;
  private busy = false;
  private closed = false;

  constructor(
    readonly sliceId: string,
    readonly contextTokens: number,
    private readonly decoder: Decoder,
    private readonly tokenizer: Tokenizer | undefined,
    private readonly modelName: string,
  ) {
    this.cache = decoder.newCache(contextTokens, prefillChunkTokens(decoder.config));
  }

  tokenize(messages: readonly ChatMessage[]): number[] {
    if (!this.tokenizer) throw new Error(`model ${this.modelName} has no tokenizer: give token ids`);
    return this.tokenizer.encodeChat(messages);
  }

  async *generate(promptIds: readonly number[], options: GenerateOptions = {}): AsyncGenerator<TokenEvent, GenerateResult> {
    if (this.closed) throw new Error('the engine is closed');
    if (this.busy) throw new Error('the engine serves one inference at a time and is busy');
    this.busy = true;
    try {
      this.cache.reset();
      const tokenizer = this.tokenizer;
      const silent = { push: () => '', end: () => '' };
      return yield* generate(
        this.decoder,
        this.cache,
        promptIds,
        options,
        prefillChunkTokens(this.decoder.config),
        () => tokenizer?.textStream() ?? silent,
      );
    } finally {
      this.busy = false;
    }
  }

  stats(): EngineStats {
    const { ple } = this.decoder;
    return { pleRowsRead: ple.rowsRead, pleRowsCached: ple.rowsCached, pleCacheHits: ple.cacheHits, kvBytes: this.cache.bytes };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.decoder.close();
  }
}

async function readTokenizer(manifest: Manifest, storeDir: string): Promise<Tokenizer | undefined> {
  const chunk = manifest.chunks.find(({ part }) => part.kind === 'tokenizer' && part.file === 'tokenizer.json');
  return chunk && loadTokenizer(await readFile(join(storeDir, 'chunks', chunk.id)));
}
