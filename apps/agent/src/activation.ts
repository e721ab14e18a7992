import { beginActivation, commit, type JournalFile, type Slot } from '@matfleet/device';
import type { Manifest } from '@matfleet/model';
import type { ChunkStore } from './chunk-store.js';
import type { EngineHost, EngineSpec, RunningEngine } from './engine/engine-host.js';
import type { Supervisor } from './engine/supervisor.js';

/** The candidate is wrong, not the moment: trying it again would end the same way. */
export class CandidateRejected extends Error {}

export interface ActivationOptions {
  readonly journal: JournalFile;
  readonly store: ChunkStore;
  readonly host: EngineHost;
  readonly supervisor: Supervisor;
  readonly hotRowBytes?: number | undefined;
  readonly goldenTimeoutMs?: number;
  /** Packs the candidate's weights for this processor, where that helps; never fails. */
  readonly prepare: (candidate: EngineSpec, signal: AbortSignal) => Promise<void>;
}

export function engineSpec(store: ChunkStore, slot: Slot, hotRowBytes?: number): EngineSpec {
  return {
    modelVersionId: slot.modelVersionId,
    modelName: slot.modelName,
    sliceId: slot.sliceId,
    manifestPath: store.manifestPath(slot.modelVersionId),
    storeDir: store.directory,
    contextTokens: slot.contextTokens,
    ...facts(store, slot),
    ...(hotRowBytes !== undefined && { hotRowBytes }),
  };
}

function facts(store: ChunkStore, slot: Slot): Pick<EngineSpec, 'precision' | 'packageBytes'> {
  const manifest = store.manifest(slot.modelVersionId);
  if (!manifest) return {};
  const { kind, block } = manifest.precision;
  return {
    precision: block === null ? kind : `${kind}/${block}`,
    packageBytes: store.chunks(slot).reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/**
 * Starts the candidate beside the slice that runs, has it reproduce the golden prompts, and only then makes it the active one. On any failure the
 * candidate's process ends and what ran before keeps running. The journal is durable before and after, so a crash at any point leaves the old slice
 * or the checked new one.
 */
export async function activate(slot: Slot, options: ActivationOptions, signal: AbortSignal): Promise<void> {
  const { journal, store, host, supervisor } = options;
  const manifest = store.manifest(slot.modelVersionId);
  if (!manifest) throw new Error(`the manifest of model version ${slot.modelVersionId} is not in the store`);
  journal.update((state) => beginActivation(state, slot));
  const candidate = engineSpec(store, slot, options.hotRowBytes);
  await options.prepare(candidate, signal);
  const engine = await host.start(candidate, signal);
  try {
    await checkGolden(engine, manifest, slot.sliceId, AbortSignal.any([signal, AbortSignal.timeout(options.goldenTimeoutMs ?? 120_000)]));
    journal.update(commit);
  } catch (error) {
    await engine.stop();
    throw error;
  }
  // New answers go to the candidate from here on; the old engine ends its own in the background.
  void supervisor.promote(engine);
}

async function checkGolden(engine: RunningEngine, manifest: Manifest, sliceId: string, signal: AbortSignal): Promise<void> {
  for (const [index, golden] of manifest.golden.filter((prompt) => prompt.sliceId === sliceId).entries()) {
    const found = await engine.golden(golden.promptIds, golden.tokenIds.length, signal);
    if (found.length === golden.tokenIds.length && found.every((id, at) => id === golden.tokenIds[at])) continue;
    const at = golden.tokenIds.findIndex((id, position) => found[position] !== id);
    throw new CandidateRejected(
      `golden prompt ${index + 1} of slice ${sliceId} went wrong at token ${at + 1} of ${golden.tokenIds.length}: expected id ${golden.tokenIds[at]}, got ${found[at] ?? 'the end'}`,
    );
  }
}
