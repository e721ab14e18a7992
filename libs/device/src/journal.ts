import { z } from 'zod';
import { Activation, began, ended, FailureKind, type ActivationStep } from './activation.js';
import { readStateFile, writeFileDurably } from './state-file.js';

/** What to run, as a desired document named it. */
export const Slot = z.object({
  generation: z.number().int().positive(),
  modelVersionId: z.string(),
  modelName: z.string(),
  sliceId: z.string(),
  contextTokens: z.number().int().nonnegative(),
  /** W3C; of whoever sent the document. */
  traceParent: z.string().max(100).optional(),
  /** A candidate whose golden answers take longer per token is rejected; no bound when absent. */
  mostInterTokenMs: z.number().positive().optional(),
  /** At once when absent. `hold`: only fetched. */
  changeOver: z.enum(['when-idle', 'hold']).optional(),
});
export type Slot = z.infer<typeof Slot>;

export const Failure = z.object({
  generation: z.number().int(),
  attempts: z.number().int().positive(),
  error: z.string(),
  /** No further attempt at this generation. */
  final: z.boolean(),
  /** Wall clock; only ever compared with this device's own. */
  retryAtMs: z.number(),
  kind: FailureKind.optional(),
});
export type Failure = z.infer<typeof Failure>;

/** The device's lasting state. `provisional` is set while a candidate is being tried; only `commit` makes it active. */
export const Journal = z.object({
  desired: Slot.optional(),
  active: Slot.optional(),
  previous: Slot.optional(),
  provisional: Slot.optional(),
  failure: Failure.optional(),
  /** The last trial: where it stands, or how it ended. */
  activation: Activation.optional(),
  /** When the active slice's engine ended by itself, wall clock, oldest first; only those of the last while. */
  crashesMs: z.array(z.number()).optional(),
  /** Generation of the empty document that this device, running nothing, has answered. */
  cleared: z.number().int().positive().optional(),
});
export type Journal = z.infer<typeof Journal>;

/** What ended an attempt, and whether trying the same again would end the same way. */
export interface FailureCause {
  readonly error: string;
  readonly final: boolean;
  readonly kind?: FailureKind | undefined;
}

export const MAX_ATTEMPTS = 5;
const MAX_ERROR_CHARACTERS = 500;
const RETRY_BASE_MS = 2_000;

/** The wait after so many failed attempts at one generation. */
export const retryMs = (attempts: number): number => RETRY_BASE_MS * 2 ** (attempts - 1);

/** The latest generation wins; an older document changes nothing. */
export const storeDesired = (journal: Journal, desired: Slot): Journal =>
  desired.generation <= (journal.desired?.generation ?? 0) ? journal : { ...journal, desired };

export const beginActivation = (journal: Journal, slot: Slot): Journal => ({ ...journal, provisional: slot, activation: began(slot.generation) });

/** The trial is at its next step, or has measured something. */
export const advance = (journal: Journal, step: ActivationStep, found: Partial<Activation> = {}): Journal =>
  journal.provisional && journal.activation ? { ...journal, activation: { ...journal.activation, ...found, step } } : journal;

/** The candidate becomes active; what ran before stays on disk as the way back. */
export function commit(journal: Journal): Journal {
  const { provisional, active, failure: _failure, cleared: _cleared, crashesMs: _crashes, ...rest } = journal;
  if (!provisional) return journal;
  const previous = active && !sameSlice(active, provisional) ? active : journal.previous;
  const { activation } = journal;
  return { ...rest, active: provisional, ...(previous && { previous }), ...(activation && { activation: { ...activation, step: 'committed' } }) };
}

/** The slice that runs already answers a newer generation too. */
export const adopt = (journal: Journal, slot: Slot): Journal => {
  const { failure: _failure, provisional: _provisional, activation, ...rest } = journal;
  const proven = activation?.step === 'committed' && activation.generation === journal.active?.generation;
  return { ...rest, active: slot, ...(proven && { activation: { ...activation, generation: slot.generation } }) };
};

/** The candidate was dropped for a newer document or because the agent stops; that is no failure of it. */
export function abandon(journal: Journal): Journal {
  const { provisional, activation: _activation, ...rest } = journal;
  return provisional ? rest : journal;
}

/** Nothing is to run since this generation. The slot stays as the way back. */
export function clear(journal: Journal, generation: number): Journal {
  const { active, failure: _failure, provisional: _provisional, activation: _activation, crashesMs: _crashes, ...rest } = journal;
  return { ...rest, cleared: generation, ...(active && { previous: active }) };
}

/** A failed attempt leaves what was active; the wait doubles and after MAX_ATTEMPTS (or at once when `final`) the generation is given up. */
export function fail(journal: Journal, generation: number, cause: FailureCause, nowMs: number): Journal {
  const { provisional: _provisional, ...rest } = journal;
  const attempts = (journal.failure?.generation === generation ? journal.failure.attempts : 0) + 1;
  const over = cause.final || attempts >= MAX_ATTEMPTS;
  const error = cause.error.slice(0, MAX_ERROR_CHARACTERS);
  return {
    ...rest,
    failure: { generation, attempts, error, final: over, retryAtMs: nowMs + retryMs(attempts), ...(cause.kind && { kind: cause.kind }) },
    activation: ended(journal.activation, generation, 'rejected', error, cause.kind),
  };
}

/** The active slice turned out not to run: back to the previous one, and the generation counts as failed for good. */
export function revert(journal: Journal, error: string, nowMs: number): Journal {
  const { active, previous, crashesMs: _crashes, ...rest } = journal;
  if (!active || !previous) return journal;
  const failed = fail({ ...rest, active: previous }, active.generation, { error, final: true, kind: 'crash-loop' }, nowMs);
  return { ...failed, activation: ended(journal.activation, active.generation, 'reverted', error, 'crash-loop') };
}

/** So many ends of the active slice's engine within the window, and the previous slice takes its place. */
export interface CrashPolicy {
  readonly crashes: number;
  readonly windowMs: number;
}
export const CRASH_POLICY: CrashPolicy = { crashes: 5, windowMs: 10 * 60_000 };

/** One more end of the active slice's engine. What a clock that was set back left in the future does not count. */
export const recordCrash = (journal: Journal, nowMs: number, policy: CrashPolicy = CRASH_POLICY): Journal => ({
  ...journal,
  crashesMs: [...(journal.crashesMs ?? []).filter((atMs) => atMs <= nowMs && nowMs - atMs < policy.windowMs), nowMs].slice(-policy.crashes),
});

export const crashLooping = ({ crashesMs = [] }: Journal, policy: CrashPolicy = CRASH_POLICY): boolean => crashesMs.length >= policy.crashes;

const interrupted = ({ sliceId }: Slot, activation: Activation | undefined): FailureCause => ({
  error: `the agent ended while it tried slice ${sliceId}${activation ? ` (${activation.step})` : ''}`,
  final: false,
  kind: 'interrupted',
});

/** At start: a provisional slot means that the last process died while trying it. */
export const recover = (journal: Journal, nowMs: number): Journal =>
  journal.provisional ? fail(journal, journal.provisional.generation, interrupted(journal.provisional, journal.activation), nowMs) : journal;

export const sameSlice = (a: Slot | undefined, b: Slot | undefined): boolean =>
  a?.modelVersionId === b?.modelVersionId && a?.sliceId === b?.sliceId && a?.contextTokens === b?.contextTokens;

/** The journal on disk; every update is durable before it returns. */
export class JournalFile {
  private state: Journal;

  constructor(
    private readonly path: string,
    nowMs: number,
  ) {
    const stored = readStateFile(path, Journal) ?? {};
    this.state = stored;
    this.note((journal) => recover(journal, nowMs));
  }

  get current(): Journal {
    return this.state;
  }

  update(change: (journal: Journal) => Journal): Journal {
    const next = change(this.state);
    if (next !== this.state) {
      writeFileDurably(this.path, `${JSON.stringify(next, null, 2)}\n`);
      this.state = next;
    }
    return next;
  }

  /** What this process should know even where the disk takes nothing more: durable as soon as an update is. */
  note(change: (journal: Journal) => Journal): Journal {
    try {
      return this.update(change);
    } catch {
      return (this.state = change(this.state));
    }
  }
}
