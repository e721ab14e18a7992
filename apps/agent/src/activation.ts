import { setMaxListeners } from 'node:events';
import {
  advance,
  agreementOf,
  beginActivation,
  commit,
  mayStartBeside,
  StepFailed,
  verdict,
  type Activation,
  type GoldenAnswer,
  type JournalFile,
  type Slot,
} from '@matfleet/device';
import { footprint, sliceById, type GoldenPrompt, type Manifest } from '@matfleet/model';
import type { ChunkStore } from './chunk-store.js';
import type { EngineHost, EngineSpec, RunningEngine } from './engine/engine-host.js';
import type { Supervisor } from './engine/supervisor.js';

export interface TrialParts {
  readonly journal: JournalFile;
  readonly store: ChunkStore;
  readonly host: EngineHost;
  readonly supervisor: Supervisor;
  readonly hotRowBytes?: number | undefined;
  readonly goldenTimeoutMs?: number;
  readonly availableMemoryBytes: () => number;
  /** Packs the candidate's weights for this processor, where that helps; never fails. */
  readonly prepare: (candidate: EngineSpec, signal: AbortSignal) => Promise<void>;
  /** The journal has another step. */
  readonly onStep: () => void;
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

/** Beside the model's own bytes; the measured value of the engine that runs, where one does. */
const RUNTIME_BYTES = 256 * 2 ** 20;

/**
 * Tries a slot: reads and hashes every chunk, starts the candidate beside the slice that runs (in its place where memory does not hold both), has it
 * reproduce the golden prompts within bounds, and only then makes it the active one. On any failure the candidate's process ends and what ran before
 * runs on. Each step is durable in the journal before it begins, so a crash at any point leaves the old slice or the checked new one. Answers the
 * chunks that were damaged, and are gone now, instead of going on with them.
 */
export async function activate(slot: Slot, parts: TrialParts, signal: AbortSignal): Promise<readonly string[]> {
  const { journal, store, host, supervisor } = parts;
  const manifest = store.manifest(slot.modelVersionId);
  if (!manifest) throw new Error(`the manifest of model version ${slot.modelVersionId} is not in the store`);
  const to = (step: Activation['step'], found: Partial<Activation> = {}): void => {
    journal.update((state) => advance(state, step, found));
    parts.onStep();
  };
  journal.update((state) => beginActivation(state, slot));
  parts.onStep();
  const damaged = await store.verify(slot, signal);
  if (damaged.length > 0) return damaged;

  const candidate = engineSpec(store, slot, parts.hotRowBytes);
  to('preparing');
  await parts.prepare(candidate, signal);

  const running = supervisor.current();
  const neededBytes =
    footprint(manifest, sliceById(manifest, slot.sliceId), slot.contextTokens).totalBytes + (running?.status().runtimeBytes || RUNTIME_BYTES);
  const replacedFirst = running !== undefined && !mayStartBeside(neededBytes, parts.availableMemoryBytes());
  to('starting', { replacedFirst });
  if (replacedFirst) await supervisor.suspend();
  let engine: RunningEngine | undefined;
  try {
    engine = await host.start(candidate, signal).catch((error: Error) => {
      throw new StepFailed('start', error.message, false, { cause: error });
    });
    to('checking');
    const found = await tryOut(engine, manifest, slot, parts, signal);
    journal.update((state) => advance(state, 'checking', found));
    const failed = verdict(journal.current.activation!, slot.sliceId, {
      mostInterTokenMs: slot.mostInterTokenMs,
      memoryLimitBytes: engine.status().memoryLimitBytes,
    });
    if (failed) throw failed;
    journal.update(commit);
  } catch (error) {
    await engine?.stop();
    if (replacedFirst) supervisor.resume(running.spec);
    throw error;
  }
  // New answers go to the candidate from here on; the old engine ends its own in the background.
  void supervisor.promote(engine);
  return [];
}

/** What the candidate answers to its own golden prompts and to those of the slice that runs, and how long it takes. */
async function tryOut(engine: RunningEngine, manifest: Manifest, slot: Slot, parts: TrialParts, signal: AbortSignal): Promise<Partial<Activation>> {
  const until = AbortSignal.any([signal, AbortSignal.timeout(parts.goldenTimeoutMs ?? 120_000)]);
  setMaxListeners(0, until);
  const times: PromptTime[] = [];
  const own: GoldenAnswer[] = [];
  for (const prompt of goldenOf(manifest, slot.sliceId)) own.push(await answer(engine, prompt, until, times));
  const { prompts, tokens } = agreementOf(own);
  const previous: GoldenAnswer[] = [];
  for (const prompt of previousGolden(manifest, parts)) previous.push(await answer(engine, prompt, until, []));
  const stepsMs = times.flatMap(({ laterMs }) => laterMs).sort((a, b) => a - b);
  return {
    prompts,
    tokens,
    ...(previous.length > 0 && { previousTokens: agreementOf(previous).tokens }),
    ...(times.length > 0 && { ttftMs: Math.max(...times.map(({ firstMs }) => firstMs)) }),
    ...(stepsMs.length > 0 && { interTokenMs: stepsMs[Math.floor(stepsMs.length / 2)]! }),
    residentBytes: engine.status().rssBytes,
  };
}

interface PromptTime {
  readonly firstMs: number;
  readonly laterMs: readonly number[];
}

const goldenOf = (manifest: Manifest, sliceId: string): GoldenPrompt[] => manifest.golden.filter((prompt) => prompt.sliceId === sliceId);

/** Prompts of another vocabulary would mean something else to the candidate. */
function previousGolden(manifest: Manifest, { journal, store }: TrialParts): GoldenPrompt[] {
  const { active } = journal.current;
  const before = active && store.manifest(active.modelVersionId);
  return before && before.config.vocabSize === manifest.config.vocabSize ? goldenOf(before, active.sliceId) : [];
}

async function answer(engine: RunningEngine, prompt: GoldenPrompt, signal: AbortSignal, times: PromptTime[]): Promise<GoldenAnswer> {
  try {
    const { tokenIds, stepsMs } = await engine.golden(prompt.promptIds, prompt.tokenIds.length, signal);
    if (stepsMs.length > 0) times.push({ firstMs: stepsMs[0]!, laterMs: stepsMs.slice(1) });
    signal.throwIfAborted();
    return { expected: prompt.tokenIds, found: tokenIds };
  } catch (error) {
    if (signal.aborted && (signal.reason as Error).name === 'TimeoutError')
      throw new StepFailed('latency', `slice ${prompt.sliceId} had not answered its golden prompts in time`, false, { cause: error });
    throw new StepFailed('start', (error as Error).message, false, { cause: error });
  }
}
