import { footprint, type Manifest, type Slice } from '@matfleet/model';
import type { Provider } from './kernels.js';

export interface AcceleratorNeed {
  /** Matrices and norms of the slices that may be open at the same time: each session has its own. */
  readonly weightsBytes: number;
  /** The keys and values that a pass takes along, and its largest intermediate values. */
  readonly passBytes: number;
  readonly totalBytes: number;
}

/** What the accelerator must hold for the `mostOpen` largest of these slices, before any is loaded. The embedding tables stay with the CPU. */
export function acceleratorNeed(manifest: Manifest, slices: readonly Slice[], mostOpen: number, contextTokens: number): AcceleratorNeed {
  const costs = slices.map((slice) => footprint(manifest, slice, contextTokens));
  const weights = costs.map(({ weightsBytes, headBytes }) => weightsBytes + headBytes).sort((a, b) => b - a);
  const weightsBytes = weights.slice(0, mostOpen).reduce((sum, bytes) => sum + bytes, 0);
  // A pass hands over new keys and values before the old ones go.
  const passBytes = Math.max(...costs.map(({ kvBytes, activationBytes }) => 2 * kvBytes + activationBytes));
  return { weightsBytes, passBytes, totalBytes: weightsBytes + passBytes };
}

/** Throws when the slices need more than the accelerator grants. */
export function checkAcceleratorMemory(provider: Provider, need: AcceleratorNeed, slices: readonly Slice[], grantedBytes: number): void {
  if (need.totalBytes <= grantedBytes) return;
  const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(2)} MB`;
  const ids = slices.map(({ id }) => id).join(', ');
  throw new Error(
    `no room on ${provider} for ${ids}: weights ${mb(need.weightsBytes)} and a pass ${mb(need.passBytes)} make ${mb(need.totalBytes)}, ` +
      `${mb(grantedBytes)} are granted; take a smaller slice, fewer open ones or a shorter context, or grant more`,
  );
}
