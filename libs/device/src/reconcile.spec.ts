import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { abandon, adopt, beginActivation, clear, commit, fail, MAX_ATTEMPTS, recover, retryMs, revert, sameSlice, storeDesired } from './journal.js';
import type { Journal, Slot } from './journal.js';
import { reconcile, type Step, type StoreView } from './reconcile.js';

const COMPLETE: StoreView = { manifest: true, missingChunks: [] };
const slot = (generation: number, sliceId = 'small', more: Partial<Slot> = {}): Slot => ({
  generation,
  modelVersionId: 'v1',
  modelName: 'nano',
  sliceId,
  contextTokens: 512,
  ...more,
});
const nothing = (generation: number): Slot => slot(generation, '', { modelVersionId: '', modelName: '', contextTokens: 0 });

const documents = (newest: number): fc.Arbitrary<Slot> => {
  const generation = fc.integer({ min: 1, max: newest });
  const full = fc.tuple(generation, fc.constantFrom('small', 'medium', 'large'), fc.constantFrom('v1', 'v2'));
  return fc.oneof(
    { weight: 6, arbitrary: full.map(([at, sliceId, modelVersionId]) => slot(at, sliceId, { modelVersionId })) },
    { weight: 1, arbitrary: generation.map(nothing) },
  );
};
const storeViews = fc.record({ manifest: fc.boolean(), missingChunks: fc.array(fc.constantFrom('a', 'b', 'c')) });
const failures = fc.record({
  generation: fc.integer({ min: 1, max: 8 }),
  attempts: fc.integer({ min: 1, max: MAX_ATTEMPTS }),
  error: fc.constant('no route to host'),
  final: fc.boolean(),
  retryAtMs: fc.integer({ min: 0, max: 100_000 }),
});
const journals: fc.Arbitrary<Journal> = fc.record(
  { desired: documents(8), active: documents(8).filter((it) => it.modelVersionId !== ''), failure: failures },
  { requiredKeys: [] },
);
const times = fc.integer({ min: 0, max: 100_000 });

describe('the next step', () => {
  it('is none while nobody has said what to run', () => {
    expect(reconcile({}, COMPLETE, 0)).toEqual({ kind: 'none' });
    expect(reconcile({ active: slot(1) }, COMPLETE, 0)).toEqual({ kind: 'none' });
  });

  it('brings the manifest, then what is missing, then the slice into service', () => {
    const journal = { desired: slot(2, 'large'), active: slot(1) };
    expect(reconcile(journal, { manifest: false, missingChunks: [] }, 0)).toEqual({ kind: 'fetch-manifest', slot: journal.desired });
    expect(reconcile(journal, { manifest: true, missingChunks: ['a', 'b'] }, 0)).toEqual({
      kind: 'fetch',
      slot: journal.desired,
      chunkIds: ['a', 'b'],
    });
    expect(reconcile(journal, COMPLETE, 0)).toEqual({ kind: 'activate', slot: journal.desired });
    expect(reconcile(commit(beginActivation(journal, journal.desired)), COMPLETE, 0)).toEqual({ kind: 'none' });
  });

  it('activates again when only the context length differs', () => {
    const desired = slot(2, 'small', { contextTokens: 2_048 });
    expect(reconcile({ desired, active: slot(1) }, COMPLETE, 0)).toEqual({ kind: 'activate', slot: desired });
  });

  it('takes over the generation, and needs nothing from the store, when the slice runs already', () => {
    fc.assert(
      fc.property(storeViews, fc.option(failures, { nil: undefined }), times, (store, failure, nowMs) => {
        const journal = { desired: slot(7), active: slot(3), ...(failure && { failure }) };
        expect(reconcile(journal, store, nowMs)).toEqual({ kind: 'adopt', slot: journal.desired });
        expect(reconcile(adopt(journal, journal.desired), store, nowMs)).toEqual({ kind: 'none' });
      }),
    );
  });

  it('stops what runs when the document is empty, once', () => {
    const journal = { desired: nothing(2), active: slot(1) };
    expect(reconcile(journal, COMPLETE, 0)).toEqual({ kind: 'clear', slot: journal.desired });
    expect(reconcile(clear(journal, 2), COMPLETE, 0)).toEqual({ kind: 'none' });
    expect(clear(journal, 2).previous).toEqual(slot(1));
  });

  it('answers an empty document also on a device that runs nothing, once for each generation', () => {
    const journal = { desired: nothing(3) };
    expect(reconcile(journal, COMPLETE, 0)).toEqual({ kind: 'clear', slot: journal.desired });
    expect(reconcile(clear(journal, 3), COMPLETE, 0)).toEqual({ kind: 'none' });
    expect(reconcile({ ...clear(journal, 3), desired: nothing(4) }, COMPLETE, 0).kind).toBe('clear');
  });

  it('fetches what a document holds it to, says that it is there, and changes over when a newer one lets it', () => {
    const journal = { desired: slot(2, 'large', { changeOver: 'hold' }), active: slot(1) };
    expect(reconcile(journal, { manifest: true, missingChunks: ['a'] }, 0).kind).toBe('fetch');
    expect(reconcile(journal, COMPLETE, 0)).toEqual({ kind: 'hold', slot: journal.desired });
    expect(reconcile(storeDesired(journal, slot(3, 'large')), COMPLETE, 0)).toEqual({ kind: 'activate', slot: slot(3, 'large') });
  });

  it('waits until it has nothing to answer where the document asks for that, and not where nothing is in service', () => {
    const desired = slot(2, 'large', { changeOver: 'when-idle' });
    expect(reconcile({ desired, active: slot(1) }, COMPLETE, 0, false).kind).toBe('wait');
    expect(reconcile({ desired, active: slot(1) }, COMPLETE, 0, true)).toEqual({ kind: 'activate', slot: desired });
    expect(reconcile({ desired }, COMPLETE, 0, false)).toEqual({ kind: 'activate', slot: desired });
  });

  it('does not wait for a clock that was set back', () => {
    const journal = fail({ desired: slot(2) }, 2, { error: 'no route to host', final: false }, 600_000);
    expect(reconcile(journal, COMPLETE, 600_000)).toEqual({ kind: 'wait', ms: 2_000 });
    expect(reconcile(journal, COMPLETE, 0).kind).toBe('activate');
  });

  it('is always about the desired slot, activates only a complete store and fetches only what is missing', () => {
    fc.assert(
      fc.property(journals, storeViews, times, (journal, store, nowMs) => {
        const step = reconcile(deepFreeze(journal), deepFreeze(store), nowMs);
        if ('slot' in step) expect(step.slot).toEqual(journal.desired);
        if (step.kind === 'activate') expect(store).toEqual(COMPLETE);
        if (step.kind === 'fetch') expect(step.chunkIds).toEqual(store.missingChunks);
        if (step.kind === 'clear') expect(journal.desired!.modelVersionId).toBe('');
        expect(reconcile(journal, store, nowMs)).toEqual(step);
      }),
    );
  });

  it('waits for exactly as long as a failed attempt may ask, and never after the last one', () => {
    fc.assert(
      fc.property(failures, storeViews, times, (failure, store, nowMs) => {
        const journal = { desired: slot(failure.generation, 'large'), active: slot(1), failure };
        const step = reconcile(journal, store, nowMs);
        const leftMs = failure.retryAtMs - nowMs;
        if (failure.final) expect(step).toEqual({ kind: 'none' });
        else if (leftMs > 0 && leftMs <= retryMs(failure.attempts)) expect(step).toEqual({ kind: 'wait', ms: leftMs });
        else expect(['fetch-manifest', 'fetch', 'activate']).toContain(step.kind);
      }),
    );
  });

  it('does not let the failure of one generation hold back another', () => {
    fc.assert(
      fc.property(failures, storeViews, times, (failure, store, nowMs) => {
        const desired = slot(failure.generation + 1, 'large');
        expect(reconcile({ desired, failure }, store, nowMs)).toEqual(reconcile({ desired }, store, nowMs));
      }),
    );
  });
});

describe('a desired document', () => {
  it('has an effect only when its generation is newer than every one before, in whatever order they come', () => {
    fc.assert(
      fc.property(fc.array(documents(8), { minLength: 1 }), (stream) => {
        const journal = stream.reduce(storeDesired, {});
        const newest = Math.max(...stream.map(({ generation }) => generation));
        expect(journal.desired).toEqual(stream.find(({ generation }) => generation === newest));
        expect(stream.reduce(storeDesired, journal)).toBe(journal);
      }),
    );
  });
});

describe('a newer document that comes while a slice is being tried', () => {
  it('leaves the tried slice to be committed, not the one that nobody has tried', () => {
    const failedBefore = fail({ desired: slot(2, 'large'), active: slot(1) }, 2, { error: 'out of memory', final: false }, 0);
    const trying = beginActivation(failedBefore, slot(2, 'large'));
    const journal = commit(storeDesired(trying, slot(3, 'medium')));
    expect(journal).toMatchObject({ desired: slot(3, 'medium'), active: slot(2, 'large'), previous: slot(1) });
    expect([journal.provisional, journal.failure]).toEqual([undefined, undefined]);
    expect(reconcile(journal, COMPLETE, 0)).toEqual({ kind: 'activate', slot: slot(3, 'medium') });
  });
});

describe('a generation that keeps failing', () => {
  it('is tried 5 times, after waits of 2, 4, 8 and 16 s, and then given up with the old slice in service', () => {
    const waits: number[] = [];
    let journal: Journal = { desired: slot(2, 'large'), active: slot(1) };
    let nowMs = 1_000;
    let attempts = 0;
    for (let i = 0; i < 20; i++) {
      const step = reconcile(journal, COMPLETE, nowMs);
      if (step.kind === 'wait') {
        waits.push(step.ms);
        nowMs += step.ms;
      } else if (step.kind === 'activate') {
        attempts += 1;
        journal = fail(beginActivation(journal, step.slot), step.slot.generation, { error: 'out of memory', final: false }, nowMs);
      }
    }
    expect(reconcile(journal, COMPLETE, Number.MAX_SAFE_INTEGER)).toEqual({ kind: 'none' });
    expect(attempts).toBe(5);
    expect(waits).toEqual([2_000, 4_000, 8_000, 16_000]);
    expect(journal).toMatchObject({ active: slot(1), failure: { generation: 2, attempts: 5, final: true } });
  });

  it('goes back to the previous slice when the new one turns out not to run, and does not try it again', () => {
    const tried = commit(beginActivation({ desired: slot(2, 'large'), active: slot(1) }, slot(2, 'large')));
    const journal = revert(tried, 'keeps ending', 0);
    expect(journal.active).toEqual(slot(1));
    expect(reconcile(journal, COMPLETE, Number.MAX_SAFE_INTEGER)).toEqual({ kind: 'none' });
  });
});

type Event =
  | { readonly kind: 'document'; readonly slot: Slot }
  | { readonly kind: 'step'; readonly outcome: 'done' | 'failed' | 'rejected' | 'killed' | 'superseded' }
  | { readonly kind: 'later'; readonly ms: number }
  | { readonly kind: 'crash loop' };

const events: fc.Arbitrary<Event> = fc.oneof(
  { weight: 3, arbitrary: documents(40).map((it) => ({ kind: 'document' as const, slot: it })) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('step' as const),
      outcome: fc.constantFrom('done', 'done', 'done', 'failed', 'rejected', 'killed', 'superseded'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('later' as const), ms: fc.integer({ min: 0, max: 20_000 }) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'crash loop' as const }) },
);

/** A device that takes its steps as the agent does, in memory. */
class Device {
  journal: Journal = {};
  nowMs = 0;
  /** Slices whose activation was committed. */
  readonly proven = new Set<string>();
  private readonly manifests = new Set<string>();
  private readonly chunks = new Set<string>();

  next(): Step {
    const { desired } = this.journal;
    return reconcile(
      this.journal,
      {
        manifest: this.manifests.has(desired?.modelVersionId ?? ''),
        missingChunks: desired && !this.chunks.has(nameOf(desired)) ? [nameOf(desired)] : [],
      },
      this.nowMs,
    );
  }

  meet(event: Event): void {
    if (event.kind === 'document') this.journal = storeDesired(this.journal, event.slot);
    else if (event.kind === 'later') this.nowMs += event.ms;
    else if (event.kind === 'crash loop') this.journal = revert(this.journal, 'keeps ending', this.nowMs);
    else this.perform(this.next(), event.outcome);
  }

  private perform(step: Step, outcome: (Event & { kind: 'step' })['outcome']): void {
    if (step.kind === 'none') return;
    if (step.kind === 'wait') return void (this.nowMs += step.ms);
    if (step.kind === 'adopt') return void (this.journal = adopt(this.journal, step.slot));
    if (step.kind === 'clear') return void (this.journal = clear(this.journal, step.slot.generation));
    if (step.kind === 'activate') this.journal = beginActivation(this.journal, step.slot);
    if (outcome === 'killed') this.journal = recover(this.journal, this.nowMs);
    else if (outcome === 'superseded') this.journal = abandon(this.journal);
    else if (outcome !== 'done')
      this.journal = fail(this.journal, step.slot.generation, { error: outcome, final: outcome === 'rejected' }, this.nowMs);
    else if (step.kind === 'fetch-manifest') this.manifests.add(step.slot.modelVersionId);
    else if (step.kind === 'fetch') step.chunkIds.forEach((id) => this.chunks.add(id));
    else {
      this.journal = commit(this.journal);
      this.proven.add(nameOf(step.slot));
    }
  }
}

describe('a device, whatever happens to it', () => {
  const lives = fc.array(events, { maxLength: 60, size: 'max' });

  it('keeps a proven slice in service from the first one on, unless it was told to run nothing', () => {
    fc.assert(
      fc.property(lives, (life) => {
        const device = new Device();
        for (const event of life) {
          const before = device.journal;
          const cleared = event.kind === 'step' && device.next().kind === 'clear';
          device.meet(event);
          const { active, provisional, desired } = device.journal;
          expect(provisional).toBeUndefined();
          if (cleared) expect(active).toBeUndefined();
          else if (before.active) expect(active).toBeDefined();
          if (active) expect(device.proven).toContain(nameOf(active));
          expect(desired?.generation ?? 0).toBeGreaterThanOrEqual(before.desired?.generation ?? 0);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('reaches what is desired within four steps and a wait once nothing fails, or has given that generation up; then there is nothing to do', () => {
    fc.assert(
      fc.property(lives, (life) => {
        const device = new Device();
        life.forEach((event) => device.meet(event));
        for (let i = 0; i < 5; i++) device.meet({ kind: 'step', outcome: 'done' });
        expect(device.next()).toEqual({ kind: 'none' });
        const { desired, active, failure } = device.journal;
        const givenUp = failure?.final === true && failure.generation === desired?.generation;
        if (desired && !givenUp) {
          if (desired.modelVersionId === '') expect(active).toBeUndefined();
          else expect(sameSlice(active, desired) && active?.generation === desired.generation).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

const nameOf = ({ modelVersionId, sliceId }: Slot): string => `${modelVersionId}/${sliceId}`;

function deepFreeze<T extends object>(value: T): T {
  Object.values(value).forEach((child) => typeof child === 'object' && child !== null && deepFreeze(child as object));
  return Object.freeze(value);
}
