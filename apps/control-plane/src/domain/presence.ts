/** A device holds a lease while it beats. Presence follows from the lease and the clock alone. */
export type Presence = 'online' | 'suspect' | 'offline';

export interface Lease {
  readonly deviceId: string;
  /** Milliseconds on the control plane's monotonic clock: never compared with a device's clock. */
  readonly lastBeatMs: number;
  /** False once the session's stream has ended; the lease then only counts down. */
  readonly connected: boolean;
}

export interface LeaseTerms {
  readonly heartbeatMs: number;
  readonly leaseMs: number;
}

/** Missed beats after which no new work goes to a device. */
const SUSPECT_BEATS = 1.5;

/** `suspect`: gets no new work. `offline`: the lease has run out. */
export function presence(lease: Lease | undefined, nowMs: number, terms: LeaseTerms): Presence {
  if (!lease) return 'offline';
  const silentMs = nowMs - lease.lastBeatMs;
  if (silentMs > terms.leaseMs) return 'offline';
  return lease.connected && silentMs <= SUSPECT_BEATS * terms.heartbeatMs ? 'online' : 'suspect';
}

export interface LeaseSweep {
  /** Devices whose lease ran out since they were last judged. */
  readonly expired: readonly string[];
  /** True when nothing was expired because the fault is more likely ours. */
  readonly braked: boolean;
  readonly reason: string | null;
}

/** A share of the fleet that does not die in one sweep by itself, and the count below which a share says nothing. */
const BRAKE_SHARE = 0.2;
const BRAKE_COUNT = 5;

/**
 * Which leases have run out. When this process itself slept, or when a large share of the leases runs out at once, the devices are
 * probably fine and we are not: then nothing expires and the caller extends all leases once.
 *
 * @param sinceSweepMs time since the last sweep; a gap beyond two beats and the sweep's own period means that this process slept
 * @param alreadyBraked the last sweep braked: a second one in a row believes what it sees
 */
export function sweepLeases(
  leases: readonly Lease[],
  nowMs: number,
  terms: LeaseTerms,
  sinceSweepMs: number,
  sweepMs: number,
  alreadyBraked: boolean,
): LeaseSweep {
  const expired = leases.filter((lease) => nowMs - lease.lastBeatMs > terms.leaseMs).map((lease) => lease.deviceId);
  if (expired.length === 0 || alreadyBraked) return { expired, braked: false, reason: null };
  if (sinceSweepMs > sweepMs + 2 * terms.heartbeatMs)
    return { expired: [], braked: true, reason: `the control plane slept for ${Math.round(sinceSweepMs)} ms between two sweeps` };
  if (expired.length >= BRAKE_COUNT && expired.length > BRAKE_SHARE * leases.length)
    return { expired: [], braked: true, reason: `${expired.length} of ${leases.length} leases ran out in one sweep` };
  return { expired, braked: false, reason: null };
}

/**
 * Devices whose replica died come back to another one, or to the next process, within their longest retry window of 64 s; nobody calls them
 * gone before that and a lease.
 */
export const HOLDER_RETURN_MS = 64_000;

/** Presence of a device whose lease this process does not keep, from what the database says of it. */
export function presenceElsewhere(
  /** The replica that holds the session, or held it when it ended: how long it has been silent, 0 for one that lives; null once the session has ended. */
  holderSilentMs: number | null,
  /** Since the device's last beat that was written down; null before the first. */
  seenAgoMs: number | null,
  { leaseMs }: LeaseTerms,
): Presence {
  if (holderSilentMs === 0) return 'online';
  if (holderSilentMs !== null) return holderSilentMs <= HOLDER_RETURN_MS + leaseMs ? 'suspect' : 'offline';
  return seenAgoMs !== null && seenAgoMs <= leaseMs ? 'suspect' : 'offline';
}
