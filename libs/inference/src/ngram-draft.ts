// Drafts from the text itself: what followed the last few tokens when they stood there before. A draft is a guess that costs nothing; one pass over
// it tells how much of it the model would have said.

const LONGEST_MATCH = 3;
/** One token alone says too little: most of what follows it is wrong. */
const SHORTEST_MATCH = 2;
const LONGEST_WAIT = 32;

/** Up to `most` tokens that followed the latest earlier occurrence of the last 3 tokens of `ids`, else of the last 2; empty where there is none. */
export function proposeDraft(ids: readonly number[], most: number): number[] {
  if (most < 1) return [];
  let best = 0;
  let from = 0;
  for (let end = ids.length - 1; end > 0 && best < LONGEST_MATCH; end--) {
    let same = 0;
    while (same < LONGEST_MATCH && same < end && ids[end - 1 - same] === ids[ids.length - 1 - same]) same++;
    if (same > best) [best, from] = [same, end];
  }
  return best >= SHORTEST_MATCH ? ids.slice(from, from + most) : [];
}

/** How eagerly to draft: tokens to wait before the next draft, and drafts of which nothing was right since the last one that helped. */
export interface DraftPace {
  readonly wait: number;
  readonly misses: number;
}

export const eager: DraftPace = { wait: 0, misses: 0 };

/** After a pass that verified `drafted` tokens (0: it only waited), `accepted` of them right. Each miss in a row doubles the wait, up to 32. */
export function paceAfter({ wait, misses }: DraftPace, drafted: number, accepted: number): DraftPace {
  if (drafted === 0) return { wait: Math.max(0, wait - 1), misses };
  if (accepted > 0) return eager;
  return { wait: Math.min(LONGEST_WAIT, 2 ** misses), misses: misses + 1 };
}
