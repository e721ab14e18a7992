import { z } from 'zod';

/** Most buckets a histogram holds; past that it halves its resolution, so that any range of values fits. */
export const maxBuckets = 320;
/** Resolution at first: base 2^(1/16) ≈ 1.044, which bounds a quantile's relative error by 2.2 %. */
const initialScale = 4;
/** A range of 2^2098 (all positive doubles) fits 320 buckets at scale -3. */
const lowestScale = -3;

/**
 * Exponential histogram of non-negative values. Bucket `offset + k` counts values in (base^i, base^(i+1)] with i = offset + k and
 * base = 2^(2^-scale). Two merge by adding the counts of equal buckets, so a fleet's quantiles come from its devices' histograms.
 */
export const Histogram = z
  .object({
    scale: z.number().int().min(lowestScale).max(20),
    offset: z
      .number()
      .int()
      .min(-(2 ** 31))
      .max(2 ** 31),
    counts: z.array(z.number().int().nonnegative()).max(maxBuckets),
    zeroCount: z.number().int().nonnegative(),
    sum: z.number().nonnegative(),
    count: z.number().int().nonnegative(),
    max: z.number().nonnegative(),
  })
  .refine((h) => h.counts.reduce((a, b) => a + b, h.zeroCount) === h.count, { message: 'the buckets do not add up to count' });
export type Histogram = z.infer<typeof Histogram>;

export const emptyHistogram: Histogram = Object.freeze({ scale: initialScale, offset: 0, counts: [], zeroCount: 0, sum: 0, count: 0, max: 0 });

/** Throws RangeError for a negative or non-finite value. */
export function histogramOf(values: Iterable<number>): Histogram {
  const byBucket = new Map<number, number>();
  let zeroCount = 0;
  let count = 0;
  let sum = 0;
  let max = 0;
  for (const value of values) {
    if (!Number.isFinite(value) || value < 0) throw new RangeError(`a histogram holds finite values of 0 or more, not ${value}`);
    count += 1;
    sum += value;
    max = Math.max(max, value);
    if (value === 0) zeroCount += 1;
    else {
      const bucket = bucketOf(value, initialScale);
      byBucket.set(bucket, (byBucket.get(bucket) ?? 0) + 1);
    }
  }
  return { ...packed(byBucket, initialScale), zeroCount, sum, count, max };
}

/** The histogram of both samples together. */
export function mergeHistograms(a: Histogram, b: Histogram): Histogram {
  const scale = Math.min(a.scale, b.scale);
  const byBucket = new Map<number, number>();
  for (const h of [a, b]) {
    const shift = h.scale - scale;
    h.counts.forEach((n, k) => {
      if (n === 0) return;
      const bucket = coarser(h.offset + k, shift);
      byBucket.set(bucket, (byBucket.get(bucket) ?? 0) + n);
    });
  }
  return {
    ...packed(byBucket, scale),
    zeroCount: a.zeroCount + b.zeroCount,
    sum: a.sum + b.sum,
    count: a.count + b.count,
    max: Math.max(a.max, b.max),
  };
}

/**
 * The nearest-rank quantile for `q` in 0..1, within `quantileErrorFactor(histogram)` of the sample's own; undefined for an empty histogram.
 */
export function quantile(histogram: Histogram, q: number): number | undefined {
  if (histogram.count === 0) return undefined;
  let rank = Math.max(1, Math.ceil(q * histogram.count));
  if (rank <= histogram.zeroCount) return 0;
  rank -= histogram.zeroCount;
  for (let k = 0; k < histogram.counts.length; k++) {
    rank -= histogram.counts[k]!;
    // The middle of the bucket on a logarithmic scale; the lowest bucket's may lie below all doubles.
    if (rank <= 0) return Math.min(histogram.max, Math.max(Number.MIN_VALUE, 2 ** ((histogram.offset + k + 0.5) * 2 ** -histogram.scale)));
  }
  return histogram.max;
}

/** How many values lie at or below each of these rising bounds; exact where a bound is a power of two and the scale 0 or more, else by the bucket's middle. */
export function countsUpTo(histogram: Histogram, bounds: readonly number[]): number[] {
  const step = 2 ** -histogram.scale;
  return bounds.map((bound) =>
    histogram.counts.reduce((sum, n, k) => (2 ** ((histogram.offset + k + 0.5) * step) <= bound ? sum + n : sum), histogram.zeroCount),
  );
}

/** A quantile lies within [true / factor, true × factor]. */
export const quantileErrorFactor = (histogram: Histogram): number => 2 ** (2 ** -histogram.scale / 2);

export const mean = (histogram: Histogram): number | undefined => (histogram.count === 0 ? undefined : histogram.sum / histogram.count);

const bucketOf = (value: number, scale: number): number => Math.ceil(Math.log2(value) * 2 ** scale) - 1;

/** Floor division, also for negative buckets: bucket (b^2i, b^(2i+2)] of the finer base b holds the finer 2i and 2i + 1. */
const coarser = (bucket: number, shift: number): number => Math.floor(bucket / 2 ** shift);

function packed(byBucket: ReadonlyMap<number, number>, scale: number): Pick<Histogram, 'scale' | 'offset' | 'counts'> {
  if (byBucket.size === 0) return { scale, offset: 0, counts: [] };
  let low = Infinity;
  let high = -Infinity;
  for (const bucket of byBucket.keys()) {
    low = Math.min(low, bucket);
    high = Math.max(high, bucket);
  }
  let shift = 0;
  while (coarser(high, shift) - coarser(low, shift) >= maxBuckets) shift += 1;
  const offset = coarser(low, shift);
  const counts = new Array<number>(coarser(high, shift) - offset + 1).fill(0);
  for (const [bucket, n] of byBucket) counts[coarser(bucket, shift) - offset]! += n;
  return { scale: scale - shift, offset, counts };
}
