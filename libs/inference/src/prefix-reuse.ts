import type { ComputedBy, KvCache } from './kv-cache.js';

/**
 * Which keys and values of earlier answers a prompt may start from: `exact` those that the same slice computed for the same tokens, `any` those
 * of other slices too, as far as they computed the layers that this one needs, `off` none.
 */
export type Reuse = 'exact' | 'any' | 'off';

/** Positions of the cache that `promptIds` need not compute again. Less than the whole prompt: the logits after its last token are wanted. */
export function reusablePositions(cache: KvCache, promptIds: readonly number[], by: ComputedBy, reuse: Reuse): number {
  if (reuse === 'off') return 0;
  const trusted = cache.leading(
    reuse === 'any' ? (other) => by.layers.every((layer) => other.layers.includes(layer)) : (other) => other.shape === by.shape,
  );
  const most = Math.min(trusted, promptIds.length - 1);
  let same = 0;
  while (same < most && cache.tokenIds[same] === promptIds[same]) same++;
  // Sliding layers hold the latest positions only: a path that left too early is computed anew.
  return cache.reaches(same) ? same : 0;
}
