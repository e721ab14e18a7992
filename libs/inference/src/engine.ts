import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chunksOf, sliceById, tokenizerOf, type Manifest } from '@matfleet/model';
import { acceleratorNeed, checkAcceleratorMemory } from './accelerator-memory.js';
import { assertChunks } from './chunk-check.js';
import type { ChatMessage, Engine, EngineStats, Format, GenerateOptions, GenerateResult, OpenEngineOptions, TokenEvent } from './engine-api.js';
import { Formats } from './formats.js';
import { generate } from './generate.js';
import type { Provider } from './kernels.js';
import type { KvCache } from './kv-cache.js';
import { SliceSet } from './slice-set.js';
import { loadTokenizer, type Tokenizer } from './tokenizer.js';

const DEFAULT_CONTEXT_TOKENS = 2048;

/** Loads one slice from a chunk store. Throws when the slice does not exist, or a chunk is missing or has another size, naming it; hashes are the caller's to check. */
export async function openEngine(options: OpenEngineOptions): Promise<Engine> {
  const { manifest, storeDir, signal } = options;
  const slice = sliceById(manifest, options.sliceId);
  const limit = manifest.config.maxPositionEmbeddings;
  const contextTokens = options.contextTokens ?? Math.min(limit, DEFAULT_CONTEXT_TOKENS);
  if (!Number.isInteger(contextTokens) || contextTokens < 1 || contextTokens > limit)
    throw new Error(`a context of ${contextTokens} tokens; model ${manifest.name} takes 1 to ${limit}`);
  signal?.throwIfAborted();
  const ids = [...new Set([slice.id, ...(options.otherSlices ?? [])])];
  const wanted = ids.map((id) => sliceById(manifest, id));
  const provider = options.provider ?? 'cpu';
  const mostOpen = Math.max(1, options.mostOpenSlices ?? ids.length);
  if (provider !== 'cpu' && options.acceleratorMemoryBytes !== undefined)
    checkAcceleratorMemory(provider, acceleratorNeed(manifest, wanted, mostOpen, contextTokens), wanted, options.acceleratorMemoryBytes);
  await assertChunks(storeDir, [...new Set(wanted.flatMap((one) => chunksOf(manifest, one)))]);
  const tokenizer = await readTokenizer(manifest, storeDir);
  const slices = await SliceSet.create(manifest, storeDir, wanted, {
    mostOpen,
    provider,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.hotRowBytes === undefined ? {} : { hotRowBytes: options.hotRowBytes }),
    ...(options.spinning === undefined ? {} : { spinning: options.spinning }),
  });
  try {
    await slices.use(slice.id);
    signal?.throwIfAborted();
    return new SliceEngine(slice.id, contextTokens, slices, tokenizer, manifest, provider);
  } catch (error) {
    await slices.close();
    throw error;
  }
}

class SliceEngine implements Engine {
  readonly executionProviders: readonly Provider[];
  private readonly cache: KvCache;
  private readonly formats: Formats;
  private busy = false;
  private closed = false;

  constructor(
    readonly sliceId: string,
    readonly contextTokens: number,
    private readonly slices: SliceSet,
    private readonly tokenizer: Tokenizer | undefined,
    private readonly manifest: Manifest,
    provider: Provider,
  ) {
    // An accelerator that computes nothing does not open.
    this.executionProviders = provider === 'cpu' ? ['cpu'] : [provider, 'cpu'];
    this.cache = slices.newCache(contextTokens, slices.passTokens);
    const { vocabSizePerLayerInput, eosTokenIds } = manifest.config;
    this.formats = new Formats(vocabSizePerLayerInput, (id) => this.bytesOf(id), eosTokenIds);
  }

  get openSlices(): readonly string[] {
    return this.slices.openIds;
  }

  async loadSlice(sliceId: string): Promise<void> {
    await this.slices.use(sliceId);
  }

  tokenize(messages: readonly ChatMessage[]): number[] {
    if (!this.tokenizer) throw new Error(`model ${this.manifest.name} has no tokenizer: give token ids`);
    return this.tokenizer.encodeChat(messages);
  }

  tokenizeText(text: string): number[] {
    if (!this.tokenizer) throw new Error(`model ${this.manifest.name} has no tokenizer: give token ids`);
    return [this.manifest.config.bosTokenId, ...this.tokenizer.encode(text)];
  }

  checkFormat(format: Format): void {
    this.formats.check(format);
  }

  bytesOf(tokenId: number): Uint8Array {
    return this.tokenizer?.bytesOf(tokenId) ?? new Uint8Array();
  }

  async *generate(promptIds: readonly number[], options: GenerateOptions = {}): AsyncGenerator<TokenEvent, GenerateResult> {
    if (this.closed) throw new Error('the engine is closed');
    if (this.busy) throw new Error('the engine serves one inference at a time and is busy');
    this.busy = true;
    try {
      const tokenizer = this.tokenizer;
      const silent = { push: () => '', end: () => '' };
      return yield* generate(
        (sliceId) => this.slices.use(sliceId),
        this.manifest.config,
        this.sliceId,
        this.cache,
        promptIds,
        options,
        this.slices.passTokens,
        () => tokenizer?.textStream() ?? silent,
        (format) => this.formats.open(format),
      );
    } finally {
      this.busy = false;
    }
  }

  stats(): EngineStats {
    const { ple, cacheBytes } = this.slices.tables;
    const { rowsRead, cacheHits, reads, readMs, readMsMax } = ple.stats;
    return {
      pleRowsRead: rowsRead,
      pleRowsCached: ple.rowsCached,
      pleCacheHits: cacheHits,
      pleReads: reads,
      pleReadMs: readMs,
      pleReadMsMax: readMsMax,
      hotRowBytes: cacheBytes,
      kvBytes: this.cache.bytes,
      acceleratorBytes: this.slices.acceleratorBytes,
    };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.slices.close();
  }
}

async function readTokenizer(manifest: Manifest, storeDir: string): Promise<Tokenizer | undefined> {
  const chunk = tokenizerOf(manifest);
  return chunk && loadTokenizer(await readFile(join(storeDir, 'chunks', chunk.id)));
}
