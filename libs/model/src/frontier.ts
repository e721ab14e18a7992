import type { Quality, Slice } from './slice.js';

/** The slice's quality for a task where it was measured, else its overall quality. */
export const qualityOf = (slice: Slice, task?: string): Quality | undefined =>
  (task === undefined ? undefined : slice.tasks?.[task]) ?? slice.quality;

export interface FrontierOptions {
  readonly task?: string;
  /** What a slice costs; by default a count that grows with its widths and layers. Pass bytes where a manifest is at hand. */
  readonly sizeOf?: (slice: Slice) => number;
}

/**
 * The slices worth running, smallest first: quality is not monotone in size, so a slice goes when another that is no larger is at
 * least as good. Of equals the first stays. Slices without a quality stay only where no slice has one.
 */
export function frontier(slices: readonly Slice[], options: FrontierOptions = {}): Slice[] {
  const sizeOf = options.sizeOf ?? relativeSize(slices);
  const rows = slices
    .map((slice, order) => ({ slice, order, size: sizeOf(slice), quality: qualityOf(slice, options.task)?.value }))
    .sort((a, b) => a.size - b.size || (b.quality ?? -1) - (a.quality ?? -1) || a.order - b.order);
  if (rows.every((row) => row.quality === undefined)) return rows.map((row) => row.slice);
  const kept: Slice[] = [];
  let best = -Infinity;
  for (const { slice, quality } of rows)
    if (quality !== undefined && quality > best) {
      best = quality;
      kept.push(slice);
    }
  return kept;
}

/** FFN channels, each layer counting as a quarter of the narrowest FFN beside its own (about what attention costs in Gemma 3n). */
function relativeSize(slices: readonly Slice[]): (slice: Slice) => number {
  const narrowest = slices.reduce((least, slice) => slice.ffn.reduce((a, b) => Math.min(a, b), least), Infinity);
  return ({ ffn }) => ffn.reduce((sum, width) => sum + width, 0) + (ffn.length * narrowest) / 4;
}
