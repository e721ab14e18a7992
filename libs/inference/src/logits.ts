import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sliceById, type Manifest, type Slice } from '@matfleet/model';
import { readModelConfig } from './checkpoint.js';
import { Decoder } from './decoder.js';
import type { LogitsModel, OpenLogitsOptions } from './engine-api.js';
import { importCheckpoint } from './import.js';
import { readManifest } from './package-dir.js';

/** Opens a checkpoint or a package for its raw logits. A bare checkpoint is cut for the wanted slice in a temporary folder. */
export async function openLogits(options: OpenLogitsOptions): Promise<LogitsModel> {
  if (options.sliceId !== undefined && (options.ffn || options.skip)) throw new Error('give a slice id or FFN widths and skipped layers, not both');
  const isPackage = await stat(join(options.source, 'manifest.json')).then(
    () => true,
    () => false,
  );
  if (isPackage) {
    const manifest = await readManifest(options.source);
    return new OpenedLogits(manifest.config, await openTraced(manifest, options.source, wantedSlice(manifest, options)));
  }
  const work = await mkdtemp(join(tmpdir(), 'matfleet-logits-'));
  try {
    const config = await readModelConfig(options.source);
    const shape = options.ffn || options.skip ? [customSlice(config, options)] : undefined;
    const out = join(work, 'package');
    const manifest = await importCheckpoint({
      source: options.source,
      out,
      precision: options.precision ?? 'fp32',
      name: 'logits',
      golden: false,
      ...(options.block === undefined ? {} : { block: options.block }),
      ...(shape ? { slices: shape } : {}),
    });
    const decoder = await openTraced(manifest, out, wantedSlice(manifest, shape ? { ...options, sliceId: 'custom' } : options));
    // The files stay readable through the handles that are open now, so that not even a killed process leaves the folder behind.
    await rm(work, { recursive: true, force: true }).catch(() => undefined);
    return new OpenedLogits(manifest.config, decoder, work);
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
}

const openTraced = (manifest: Manifest, dir: string, slice: Pick<Slice, 'ffn' | 'skip'>): Promise<Decoder> =>
  Decoder.open(manifest, dir, slice, { trace: true, activations: 'float32' });

function wantedSlice(manifest: Manifest, options: OpenLogitsOptions): Pick<Slice, 'ffn' | 'skip'> {
  if (options.sliceId !== undefined) return sliceById(manifest, options.sliceId);
  return options.ffn || options.skip ? customSlice(manifest.config, options) : { ffn: manifest.config.intermediateSize, skip: [] };
}

/** The slice of the given widths and skips; without widths every kept layer keeps its full one. */
function customSlice(config: Manifest['config'], { ffn, skip = [] }: OpenLogitsOptions): Slice {
  const skipped = [...new Set(skip)].sort((a, b) => a - b);
  const kept = config.intermediateSize.filter((_, layer) => !skipped.includes(layer));
  return { id: 'custom', name: 'Custom slice', ffn: [...(ffn ?? kept)], skip: skipped };
}

class OpenedLogits implements LogitsModel {
  constructor(
    readonly config: Manifest['config'],
    private readonly decoder: Decoder,
    private readonly workDir?: string,
  ) {}

  get sharedLayerPositions(): readonly number[] {
    return this.decoder.sharedLayerPositions;
  }

  async logits(ids: readonly number[], { prefill = ids.length, last = false }: { prefill?: number; last?: boolean } = {}): Promise<Float32Array[]> {
    const limit = this.config.maxPositionEmbeddings;
    if (ids.length === 0 || ids.length > limit) throw new Error(`${ids.length} token ids; 1 to ${limit} are possible`);
    if (!Number.isInteger(prefill) || prefill < 1 || prefill > ids.length)
      throw new Error(`prefill of ${prefill}; with ${ids.length} ids it can be 1 to ${ids.length}`);
    const cache = this.decoder.newCache(ids.length, prefill);
    let rows = (await this.decoder.forward(ids.slice(0, prefill), cache, last ? 1 : prefill)).map((row) => row.slice());
    for (const id of ids.slice(prefill)) {
      const row = (await this.decoder.forward([id], cache))[0]!.slice();
      rows = last ? [row] : [...rows, row];
    }
    return rows;
  }

  async close(): Promise<void> {
    await this.decoder.close();
    if (this.workDir) await rm(this.workDir, { recursive: true, force: true });
  }
}
