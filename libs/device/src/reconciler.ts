import { setTimeout as delay } from 'node:timers/promises';
import { ChangeOver, Phase, type Desired, type Observed, type Report } from '@matfleet/protocol';
import { traced, traceParent } from '@matfleet/tracing';
import { failureKindOf, StepFailed } from './activation.js';
import { activationToWire } from './activation-wire.js';
import { abandon, adopt, clear, fail, storeDesired, type Failure, type Journal, type Slot } from './journal.js';
import { reconcile, type Step, type StoreView } from './reconcile.js';

/** The journal on disk, or in memory where a device may forget. */
export interface JournalStore {
  readonly current: Journal;
  update(change: (journal: Journal) => Journal): Journal;
  /** The same, and where the disk takes nothing more, for this process alone. */
  note(change: (journal: Journal) => Journal): Journal;
}

/** How far this device is with a generation; sequence and observation are added on the way. */
export type ReportDetail = Partial<Pick<Report, 'fetchedBytes' | 'totalBytes' | 'error'>>;

/** What a device does where the decision is made: store, network and engine. */
export interface ReconcilerParts {
  readonly journal: JournalStore;
  view(slot: Slot): StoreView;
  /** False while nothing can be fetched: the next nudge tries again. */
  canFetch(): boolean;
  fetchManifest(slot: Slot, signal: AbortSignal): Promise<void>;
  fetch(slot: Slot, chunkIds: readonly string[], signal: AbortSignal): Promise<void>;
  /** Puts the slot into service and commits it; false when the store turned out to lack something. */
  activate(slot: Slot, signal: AbortSignal): Promise<boolean>;
  /** A new slot serves and that was reported: what nothing needs any more may go. */
  tidy?(): Promise<unknown>;
  /** False while something is being answered; absent: always true. */
  isIdle?(): boolean;
  /** Nothing is to run any more. */
  stopServing(): Promise<void>;
  report(report: Omit<Report, 'sequence'>): void;
  failed?(failure: Failure): void;
  /** This device's wall clock, milliseconds. */
  readonly nowMs: () => number;
}

const IDLE_MS = 60_000;
const CHANGE_OVERS: Partial<Record<ChangeOver, Slot['changeOver']>> = {
  [ChangeOver.CHANGE_OVER_WHEN_IDLE]: 'when-idle',
  [ChangeOver.CHANGE_OVER_HOLD]: 'hold',
};

/** Moves one device towards its newest desired document, one step at a time, until stopped. */
export class Reconciler {
  private desiredAt = new AbortController();
  private wake: () => void = () => {};

  constructor(private readonly parts: ReconcilerParts) {}

  /** Stores the document; false for one that is not newer. What is under way for an older generation is cut short. */
  accept(desired: Desired): boolean {
    const slot: Slot = {
      generation: Number(desired.generation),
      modelVersionId: desired.modelVersionId,
      modelName: desired.modelName,
      sliceId: desired.sliceId,
      contextTokens: desired.contextTokens,
      ...(desired.traceParent && { traceParent: desired.traceParent }),
      ...(CHANGE_OVERS[desired.changeOver] && { changeOver: CHANGE_OVERS[desired.changeOver] }),
      ...(desired.mostInterTokenMs !== undefined && { mostInterTokenMs: desired.mostInterTokenMs }),
    };
    const before = this.parts.journal.current;
    if (this.parts.journal.note((state) => storeDesired(state, slot)) === before) return false;
    this.desiredAt.abort();
    this.wake();
    return true;
  }

  /** Looks again now: the network is back, or the device stops. */
  nudge(): void {
    this.wake();
  }

  observed(): Observed {
    const { active, cleared } = this.parts.journal.current;
    if (!active) return { generation: BigInt(cleared ?? 0), modelVersionId: '', sliceId: '' };
    return { generation: BigInt(active.generation), modelVersionId: active.modelVersionId, sliceId: active.sliceId };
  }

  report(generation: number, phase: Phase, detail: ReportDetail = {}): void {
    const { activation } = this.parts.journal.current;
    this.parts.report({
      generation: BigInt(generation),
      phase,
      observed: this.observed(),
      activation: activation?.generation === generation ? activationToWire(activation) : undefined,
      fetchedBytes: 0n,
      totalBytes: 0n,
      error: '',
      // Also without spans of its own a device says to which trace its answer belongs.
      traceParent: traceParent() ?? this.traceOf(generation),
      ...detail,
    });
  }

  private traceOf(generation: number): string | undefined {
    const { desired } = this.parts.journal.current;
    return desired?.generation === generation ? desired.traceParent : undefined;
  }

  /** After a start: what the last process may not have got across. */
  reportPosition(): void {
    const { desired, active, cleared, failure } = this.parts.journal.current;
    if (!desired) return;
    if ((active?.generation ?? cleared) === desired.generation) this.report(desired.generation, Phase.PHASE_ACTIVE);
    else if (failure?.generation === desired.generation && failure.final)
      this.report(desired.generation, Phase.PHASE_FAILED, { error: failure.error });
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { journal, view, nowMs } = this.parts;
    while (!signal.aborted) {
      let waitMs = IDLE_MS;
      this.desiredAt = new AbortController();
      const attempt = AbortSignal.any([signal, this.desiredAt.signal]);
      // Armed before the step, so that a document that comes meanwhile is not slept over.
      const nudged = new Promise<void>((resolve) => (this.wake = resolve));
      try {
        const { desired } = journal.current;
        const step = reconcile(
          journal.current,
          desired && desired.modelVersionId !== '' ? view.call(this.parts, desired) : { manifest: false, missingChunks: [] },
          nowMs(),
          this.parts.isIdle?.() ?? true,
        );
        if (step.kind === 'wait') waitMs = step.ms;
        else if (step.kind !== 'none' && (await this.perform(step, attempt))) continue;
      } catch (error) {
        if (attempt.aborted) {
          journal.note(abandon);
          continue;
        }
        waitMs = this.failed(error as Error);
      }
      await Promise.race([nudged, delay(waitMs, undefined, { signal: attempt }).catch(() => {})]);
    }
  }

  /** True when another step may follow at once. Each step is a span of the trace that the document belongs to. */
  private perform(step: Exclude<Step, { kind: 'none' | 'wait' }>, signal: AbortSignal): Promise<boolean> {
    const { generation, sliceId, traceParent: parent } = step.slot;
    const attributes = { 'matfleet.generation': generation, 'matfleet.slice': sliceId };
    return traced(step.kind, { kind: 'consumer', parent, attributes }, () => this.performed(step, signal));
  }

  private async performed(step: Exclude<Step, { kind: 'none' | 'wait' }>, signal: AbortSignal): Promise<boolean> {
    const { parts } = this;
    const { slot } = step;
    switch (step.kind) {
      case 'fetch-manifest':
        if (!parts.canFetch()) return false;
        await parts.fetchManifest(slot, signal);
        return true;
      case 'fetch':
        if (!parts.canFetch()) return false;
        await parts.fetch(slot, step.chunkIds, signal);
        return true;
      case 'activate':
        if (await parts.activate(slot, signal)) {
          this.report(slot.generation, Phase.PHASE_ACTIVE);
          await parts.tidy?.();
        }
        return true;
      case 'hold':
        this.report(slot.generation, Phase.PHASE_FETCHED);
        return false;
      case 'adopt':
        parts.journal.update((state) => adopt(state, slot));
        this.report(slot.generation, Phase.PHASE_ACTIVE);
        return true;
      case 'clear':
        parts.journal.update((state) => clear(state, slot.generation));
        await parts.stopServing();
        this.report(slot.generation, Phase.PHASE_ACTIVE);
        return true;
    }
  }

  /** Milliseconds until the next try. */
  private failed(error: Error): number {
    const { journal, nowMs } = this.parts;
    const generation = journal.current.desired?.generation;
    if (generation === undefined) return IDLE_MS;
    const cause = { error: error.message, final: error instanceof StepFailed && error.final, kind: failureKindOf(error) };
    const { failure } = journal.note((state) => fail(state, generation, cause, nowMs()));
    if (!failure) return IDLE_MS;
    this.parts.failed?.(failure);
    if (failure.final) this.report(generation, Phase.PHASE_FAILED, { error: failure.error });
    return failure.final ? IDLE_MS : Math.max(0, failure.retryAtMs - nowMs());
  }
}
