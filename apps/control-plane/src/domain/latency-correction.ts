/**
 * The learned ratio measured / predicted inter-token latency of one device. It belongs to the device, not to a slice, so what is learned
 * on one slice predicts the others. The prediction already holds the overhead per layer; the ratio carries how starved or how fast the
 * box is, which for a tiny model under a CPU quota goes far beyond bandwidth.
 */
export const MIN_CORRECTION = 0.1;
export const MAX_CORRECTION = 100;

/** Weight of one full window; three windows move the ratio 7/8 of the way. */
const WINDOW_WEIGHT = 0.5;
/** A window with this many tokens counts in full, a thinner one in proportion. */
const FULL_WINDOW_TOKENS = 32;

export interface LatencyMeasurement {
  /** Mean over the window: the inverse of throughput, which a stall of a CPU quota cannot hide from, as it can from a median. */
  readonly measuredMs: number;
  /** Of the slice that was measured, uncorrected. */
  readonly predictedMs: number;
  readonly tokens: number;
}

/** Moves the ratio towards what was measured, as a weighted mean of logarithms: turning 20 times slower and coming back take equally long. */
export function learnCorrection(correction: number, measurement: LatencyMeasurement): number {
  if (!(measurement.measuredMs > 0) || !(measurement.predictedMs > 0) || !(measurement.tokens > 0)) return clip(correction);
  const weight = WINDOW_WEIGHT * Math.min(1, measurement.tokens / FULL_WINDOW_TOKENS);
  const ratio = measuredCorrection(measurement);
  return clip(Math.exp((1 - weight) * Math.log(clip(correction)) + weight * Math.log(ratio)));
}

/** What one window alone says the ratio is. Both in milliseconds, the prediction uncorrected. */
export const measuredCorrection = ({ measuredMs, predictedMs }: Pick<LatencyMeasurement, 'measuredMs' | 'predictedMs'>): number =>
  clip(measuredMs / predictedMs);

/**
 * Forgets with time what no traffic confirms: a device that was slow and now idles on a small slice must get its chance again. Halves the
 * logarithm every half-life.
 */
export function relaxCorrection(correction: number, idleMs: number, halfLifeMs: number): number {
  return clip(Math.exp(Math.log(clip(correction)) * 2 ** (-Math.max(0, idleMs) / halfLifeMs)));
}

const clip = (correction: number): number => (Number.isFinite(correction) ? Math.min(MAX_CORRECTION, Math.max(MIN_CORRECTION, correction)) : 1);
