// Summaries of measured values.

/** NaN where there is none. */
export function median(values) {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Share of rows with a hit, and the standard error of that share. */
export function quality(hits) {
  const value = hits.filter(({ hit }) => hit).length / hits.length;
  return { value: round(value), samples: hits.length, stderr: round(Math.sqrt((value * (1 - value)) / hits.length)) };
}

const round = (value) => Math.round(value * 1e4) / 1e4;
