import { retryMs, sameSlice, type Journal, type Slot } from './journal.js';

/** What the store lacks for the desired slice; `manifest: false` while that is not known yet. */
export interface StoreView {
  readonly manifest: boolean;
  readonly missingChunks: readonly string[];
}

export type Step =
  | { readonly kind: 'none' }
  /** Nothing to do before then. */
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'fetch-manifest'; readonly slot: Slot }
  | { readonly kind: 'fetch'; readonly slot: Slot; readonly chunkIds: readonly string[] }
  | { readonly kind: 'activate'; readonly slot: Slot }
  /** Everything is there; the document holds the device to what it runs. */
  | { readonly kind: 'hold'; readonly slot: Slot }
  /** The running slice is the desired one already: only the generation moves. */
  | { readonly kind: 'adopt'; readonly slot: Slot }
  | { readonly kind: 'clear'; readonly slot: Slot };

/** How often a busy device looks whether it may change over. */
const IDLE_LOOK_MS = 250;

/**
 * Pure: the one next step from what is active to what is desired. Repeating it until `none`, or `hold`, converges, whatever happened in between.
 * `isIdle`: nothing is being answered right now.
 */
export function reconcile(journal: Journal, store: StoreView, nowMs: number, isIdle = true): Step {
  const { desired, active, failure } = journal;
  if (!desired) return { kind: 'none' };
  if (desired.modelVersionId === '') return active || journal.cleared !== desired.generation ? { kind: 'clear', slot: desired } : { kind: 'none' };
  if (active && sameSlice(active, desired)) return active.generation === desired.generation ? { kind: 'none' } : { kind: 'adopt', slot: desired };
  if (failure?.generation === desired.generation) {
    if (failure.final) return { kind: 'none' };
    const ms = failure.retryAtMs - nowMs;
    // More than the whole wait is left only when the clock was set back: waiting for that would leave the device behind for as long.
    if (ms > 0 && ms <= retryMs(failure.attempts)) return { kind: 'wait', ms };
  }
  if (!store.manifest) return { kind: 'fetch-manifest', slot: desired };
  if (store.missingChunks.length > 0) return { kind: 'fetch', slot: desired, chunkIds: store.missingChunks };
  if (desired.changeOver === 'hold') return { kind: 'hold', slot: desired };
  // Without anything in service there is nobody to disturb.
  if (desired.changeOver === 'when-idle' && active && !isIdle) return { kind: 'wait', ms: IDLE_LOOK_MS };
  return { kind: 'activate', slot: desired };
}
