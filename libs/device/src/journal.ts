import { z } from 'zod';
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
});
export type Failure = z.infer<typeof Failure>;

/** The device's lasting state. `provisional` is set while a candidate is being tried; only `commit` makes it active. */
export const Journal = z.object({
  desired: Slot.optional(),
  active: Slot.optional(),
  previous: Slot.optional(),
  provisional: Slot.optional(),
  failure: Failure.optional(),
  /** Generation of the empty document that this device, running nothing, has answered. */
  cleared: z.number().int().positive().optional(),
});
export type Journal = z.infer<typeof Journal>;

export const MAX_ATTEMPTS = 5;
const RETRY_BASE_MS = 2_000;

/** The wait after so many failed attempts at one generation. */
export const retryMs = (attempts: number): number => RETRY_BASE_MS * 2 ** (attempts - 1);

/** The latest generation wins; an older document changes nothing. */
export const storeDesired = (journal: Journal, desired: Slot): Journal =>
  desired.generation <= (journal.desired?.generation ?? 0) ? journal : { ...journal, desired };

export const beginActivation = (journal: Journal, slot: Slot): Journal => ({ ...journal, provisional: slot });

/** The candidate becomes active; what ran before stays on disk as the way back. */
export function commit(journal: Journal): Journal {
  const { provisional, active, failure: _failure, cleared: _cleared, ...rest } = journal;
  if (!provisional) return journal;
  const previous = active && !sameSlice(active, provisional) ? active : journal.previous;
  return { ...rest, active: provisional, ...(previous && { previous }) };
}

/** The slice that runs already answers a newer generation too. */
export const adopt = (journal: Journal, slot: Slot): Journal => {
  const { failure: _failure, provisional: _provisional, ...rest } = journal;
  return { ...rest, active: slot };
};

/** The candidate was dropped for a newer document or because the agent stops; that is no failure of it. */
export function abandon(journal: Journal): Journal {
  const { provisional, ...rest } = journal;
  return provisional ? rest : journal;
}

/** Nothing is to run since this generation. The slot stays as the way back. */
export function clear(journal: Journal, generation: number): Journal {
  const { active, failure: _failure, provisional: _provisional, ...rest } = journal;
  return { ...rest, cleared: generation, ...(active && { previous: active }) };
}

/** A failed attempt leaves what was active; the wait doubles and after MAX_ATTEMPTS (or at once when `final`) the generation is given up. */
export function fail(journal: Journal, generation: number, error: string, final: boolean, nowMs: number): Journal {
  const { provisional: _provisional, ...rest } = journal;
  const attempts = (journal.failure?.generation === generation ? journal.failure.attempts : 0) + 1;
  const over = final || attempts >= MAX_ATTEMPTS;
  return {
    ...rest,
    failure: { generation, attempts, error: error.slice(0, 500), final: over, retryAtMs: nowMs + retryMs(attempts) },
  };
}

/** The active slice turned out not to run: back to the previous one, and the generation counts as failed for good. */
export function revert(journal: Journal, error: string, nowMs: number): Journal {
  const { active, previous, ...rest } = journal;
  if (!active || !previous) return journal;
  return fail({ ...rest, active: previous }, active.generation, error, true, nowMs);
}

/** At start: a provisional slot means that the last process died while trying it. */
export const recover = (journal: Journal, nowMs: number): Journal =>
  journal.provisional
    ? fail(journal, journal.provisional.generation, `the agent ended while it tried slice ${journal.provisional.sliceId}`, false, nowMs)
    : journal;

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
    this.update((journal) => recover(journal, nowMs));
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
}
