/** Every Hello raises a device's epoch. What carries a lower one comes from a session that has been replaced and has no effect. */
export type Fence = { readonly kind: 'current' } | { readonly kind: 'stale'; readonly reason: string };

export function fence(currentEpoch: bigint, messageEpoch: bigint): Fence {
  if (messageEpoch === currentEpoch) return { kind: 'current' };
  return {
    kind: 'stale',
    reason:
      messageEpoch < currentEpoch
        ? `epoch ${messageEpoch} was replaced by epoch ${currentEpoch}`
        : `epoch ${messageEpoch} was never given out; the newest is ${currentEpoch}`,
  };
}

/**
 * The generation that a new desired document gets: beyond what we gave out and beyond what the device says it stored, so that a control
 * plane restored from an old backup is still obeyed.
 */
export const nextGeneration = (given: bigint, storedByDevice: bigint): bigint => (given > storedByDevice ? given : storedByDevice) + 1n;
