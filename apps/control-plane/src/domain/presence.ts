/** A device holds a lease while it beats. Presence follows from the lease and the clock alone. */
export type Presence = 'online' | 'suspect' | 'offline';

const WORST_FIRST: readonly Presence[] = ['offline', 'suspect', 'online'];
export const betterPresence = (a: Presence, b: Presence): Presence => (WORST_FIRST.indexOf(a) > WORST_FIRST.indexOf(b) ? a : b);

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

/** Since when, in milliseconds: of this sweep. */
export interface SweepTimes {
  readonly sinceSweepMs: number;
  /** The sweeps' own period. */
  readonly sweepMs: number;
  /** Infinity before the first brake. */
  readonly sinceBrakeMs: number;
}

export interface LeaseSweep {
  /** Devices whose lease has run out. */
  readonly expired: readonly string[];
  /** Why nothing was expired: the fault is more likely ours. Null without a brake. */
  readonly brake: string | null;
}

/** A share of the fleet that does not fall silent within one beat by itself, and the count below which a share says nothing. */
const BRAKE_SHARE = 0.2;
const BRAKE_COUNT = 5;
/** In this many leases there is one brake: what is silent for all of that is believed. */
const BRAKE_LEASES = 2;

/**
 * Which leases have run out. When this process itself slept, or when a large share of the leases has run out or will within one beat, the devices
 * are probably fine and we are not: then nothing expires and the caller extends all leases once.
 */
export function sweepLeases(leases: readonly Lease[], nowMs: number, terms: LeaseTerms, since: SweepTimes): LeaseSweep {
  const silentFor = (ms: number): Lease[] => leases.filter((lease) => nowMs - lease.lastBeatMs > ms);
  const expired = silentFor(terms.leaseMs).map((lease) => lease.deviceId);
  if (expired.length === 0 || since.sinceBrakeMs <= BRAKE_LEASES * terms.leaseMs) return { expired, brake: null };
  if (since.sinceSweepMs > since.sweepMs + 2 * terms.heartbeatMs)
    return { expired: [], brake: `the control plane slept for ${Math.round(since.sinceSweepMs)} ms between two sweeps` };
  // Devices that fall silent together do so at different moments of their beat.
  const silent = silentFor(terms.leaseMs - terms.heartbeatMs).length;
  if (silent >= BRAKE_COUNT && silent > BRAKE_SHARE * leases.length)
    return { expired: [], brake: `${silent} of ${leases.length} devices fell silent within one beat` };
  return { expired, brake: null };
}

/**
 * Devices whose replica died come back to another one, or to the next process, within two of their longest retry windows of 64 s: one may try at the
 * beginning of a window and then at the end of the next. Nobody calls them gone before that and a lease.
 */
export const HOLDER_RETURN_MS = 128_000;

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
