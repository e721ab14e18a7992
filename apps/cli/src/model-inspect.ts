import { join } from 'node:path';
import { footprint, frontier, type Footprint, type Manifest, type Quality, type Slice } from '@matfleet/model';
import { formatWidths, parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { Failure } from './failure.js';
import { formatBytes, table } from './output.js';
import { readPackage, type PackageDir } from './package-dir.js';

export const registerInspect: Register = (model, { output, signal }) => {
  model
    .command('inspect')
    .description('show the slices of a package: shape, bytes, quality')
    .argument('<dir>', 'a model package')
    .option('--context <tokens>', 'context that K/V and activations are counted for; default: the model’s limit, at most 4096')
    .option('--verify', 'read every chunk, and what was prepared from them, and compare checksums')
    .action(async (dir: string, options: { context?: string; verify?: true }) => {
      const context = options.context === undefined ? undefined : parseWhole('--context', options.context, 1);
      const found = await readPackage(dir);
      if (options.verify) await assertWhole(found, signal);
      output.result(inspection(found, context), renderInspection);
    });
};

async function assertWhole({ dir, manifest }: PackageDir, signal: AbortSignal): Promise<void> {
  const { verifyChunks, verifyPrepared } = await import('@matfleet/inference');
  const damaged = await verifyChunks(dir, manifest.chunks, { signal });
  if (damaged.length > 0)
    throw new Failure(
      'bad-chunk',
      [
        `${damaged.length} of ${manifest.chunks.length} chunks are not what the manifest says:`,
        ...damaged.map(({ problem }) => problem),
        `Import the same checkpoint with the same options again: it gives the same chunks. Or copy the files from another copy of the package.`,
      ].join('\n'),
    );
  const wrong = await verifyPrepared(dir);
  if (wrong.length > 0)
    throw new Failure(
      'bad-chunk',
      ['The chunks are right, but not what was prepared from them:', ...wrong, `Remove ${join(dir, 'prepared')}: it is made again.`].join('\n'),
    );
}

export interface Inspection {
  readonly name: string;
  readonly modelVersionId: string;
  readonly precision: Manifest['precision'];
  readonly layers: number;
  readonly vocabSize: number;
  readonly chunks: number;
  /** Of all chunks. */
  readonly bytes: number;
  readonly contextTokens: number;
  readonly evaluation: Manifest['evaluation'] | null;
  readonly slices: readonly InspectedSlice[];
}

interface InspectedSlice {
  readonly id: string;
  readonly name: string;
  readonly layers: number;
  readonly ffn: readonly number[];
  readonly skip: readonly number[];
  readonly quality: Quality | null;
  readonly tasks: Slice['tasks'] | null;
  /** Whether no slice that is no larger is at least as good. */
  readonly frontier: boolean;
  readonly footprint: Footprint;
}

const DEFAULT_CONTEXT_TOKENS = 4096;

export function inspection({ manifest, modelVersionId }: PackageDir, context?: number): Inspection {
  const contextTokens = context ?? Math.min(DEFAULT_CONTEXT_TOKENS, manifest.config.maxPositionEmbeddings);
  const footprints = new Map(manifest.slices.map((slice) => [slice, footprint(manifest, slice, contextTokens)]));
  const best = new Set(frontier(manifest.slices, { sizeOf: (slice) => footprints.get(slice)!.totalBytes }));
  return {
    name: manifest.name,
    modelVersionId,
    precision: manifest.precision,
    layers: manifest.config.numHiddenLayers,
    vocabSize: manifest.config.vocabSize,
    chunks: manifest.chunks.length,
    bytes: manifest.chunks.reduce((sum, chunk) => sum + chunk.bytes, 0),
    contextTokens,
    evaluation: manifest.evaluation ?? null,
    slices: manifest.slices.map((slice) => ({
      id: slice.id,
      name: slice.name,
      layers: slice.ffn.length,
      ffn: slice.ffn,
      skip: slice.skip,
      quality: slice.quality ?? null,
      tasks: slice.tasks ?? null,
      frontier: best.has(slice),
      footprint: footprints.get(slice)!,
    })),
  };
}

export function renderInspection(document: Inspection): string {
  const { precision, evaluation } = document;
  const head = [
    `${document.name}  ${document.modelVersionId}`,
    `${precision.kind}${precision.block ? `, block ${precision.block}` : ''} · ${document.layers} layers · ${document.vocabSize} tokens · ${document.chunks} chunks, ${formatBytes(document.bytes)}`,
    evaluation ? `quality: ${evaluation.metric} on ${evaluation.dataset}${evaluation.date ? `, ${evaluation.date}` : ''}` : 'quality: not measured',
  ];
  const rows = table(document.slices, [
    { title: 'slice', value: (slice) => slice.id },
    { title: 'layers', value: (slice) => `${slice.layers}`, align: 'right' },
    { title: 'ffn', value: (slice) => formatWidths(slice.ffn) },
    { title: 'skip', value: (slice) => slice.skip.join(',') || '-' },
    { title: 'download', value: (slice) => formatBytes(slice.footprint.downloadBytes), align: 'right' },
    { title: 'resident', value: (slice) => formatBytes(slice.footprint.totalBytes), align: 'right' },
    { title: 'K/V', value: (slice) => formatBytes(slice.footprint.kvBytes), align: 'right' },
    { title: 'quality', value: (slice) => formatQuality(slice.quality), align: 'right' },
    { title: 'frontier', value: (slice) => (slice.frontier ? 'yes' : 'no') },
  ]);
  return [...head, '', rows, '', `resident and K/V at a context of ${document.contextTokens} tokens`].join('\n');
}

const formatQuality = (quality: Quality | null): string =>
  quality === null ? '-' : `${(100 * quality.value).toFixed(1)} %${quality.samples > 0 ? ` ± ${(100 * quality.stderr).toFixed(1)}` : ''}`;
