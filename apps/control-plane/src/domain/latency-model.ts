/**
 * What a token costs beside the bytes it reads, on one core of a small box, measured with the nano model on onnxruntime: a fixed part
 * (sampling, PLE row, tied head's launch) and a part per kept layer (operator launches). On real models the bytes dominate.
 */
export const FIXED_OVERHEAD_MS = 0.6;
export const LAYER_OVERHEAD_MS = 0.18;

/** Taken for a device that has not measured its memory: a slow box's single channel. */
export const ASSUMED_BANDWIDTH_BYTES_PER_SECOND = 4e9;

export interface TokenCost {
  /** Bytes read to decode one token: weights, tied head and K/V. */
  readonly bytesPerToken: number;
  readonly layers: number;
}

/** Inter-token latency in milliseconds by the roofline of a bandwidth-bound decode, before any learned correction. */
export function predictInterTokenMs(cost: TokenCost, bandwidthBytesPerSecond: number): number {
  const bandwidth = bandwidthBytesPerSecond > 0 ? bandwidthBytesPerSecond : ASSUMED_BANDWIDTH_BYTES_PER_SECOND;
  return FIXED_OVERHEAD_MS + LAYER_OVERHEAD_MS * cost.layers + (cost.bytesPerToken / bandwidth) * 1_000;
}
