/** One-sided 97.5 %: how sure a rollout is before it calls a failure share too high. */
const Z = 1.96;

/** Lower end of the Wilson interval of a share: what the share is at least, beyond chance. */
export function shareAtLeast(hits: number, sample: number): number {
  if (sample === 0) return 0;
  const share = hits / sample;
  const spread = Z * Math.sqrt((share * (1 - share)) / sample + Z ** 2 / (4 * sample ** 2));
  return Math.max(0, (share + Z ** 2 / (2 * sample) - spread) / (1 + Z ** 2 / sample));
}

export interface WaveCount {
  /** Devices that count: without those that were left out. */
  readonly size: number;
  readonly succeeded: number;
  readonly failed: number;
}

/**
 * Why a wave has too many failures, null while it has not. Either they are already more than `percent` of the whole wave, whatever comes; or
 * their share of those that have ended lies above it beyond chance. A bad version is stopped after a handful of devices, and a wave of
 * hundreds is not stopped by an unlucky beginning. Nothing is decided before `minSample` devices have ended, or all of a smaller wave.
 */
export function tooManyFailures({ size, succeeded, failed }: WaveCount, percent: number, minSample: number): string | null {
  const ended = succeeded + failed;
  if (failed === 0 || ended < Math.min(minSample, size)) return null;
  if (failed * 100 > percent * size) return `${failed} of the wave's ${size} devices failed, more than ${percent} %`;
  if (shareAtLeast(failed, ended) * 100 > percent) return `${failed} of the first ${ended} devices failed, more than ${percent} % beyond chance`;
  return null;
}

/** Why too few of a wave's devices run the version, once all have ended; null when they are enough. */
export function tooFewSucceeded({ size, succeeded, failed }: WaveCount, percent: number): string | null {
  if (size === 0 || succeeded * 100 >= percent * size) return null;
  return `${succeeded} of the wave's ${size} devices run it and ${failed} failed; ${percent} % were asked for`;
}
