import { footprint, frontier, qualityOf, type Footprint, type Manifest, type Slice } from '@matfleet/model';
import { predictInterTokenMs } from './latency-model.js';
import { formatBytes, formatMs } from './units.js';

/** What a device says about itself, as far as the choice of a slice needs it. Sizes in bytes; 0 means not set or not measured. */
export interface DeviceFacts {
  /** The operator's grant for weights, K/V and activations. */
  readonly modelMemoryBytes: number;
  readonly availableMemoryBytes: number;
  readonly runtimeMemoryBytes: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly freeDiskBytes: number;
}

export interface MemoryLimit {
  readonly bytes: number;
  readonly from: 'grant' | 'available memory';
}

/** One frontier slice seen from one device. */
export interface Candidate {
  readonly sliceId: string;
  readonly name: string;
  readonly quality: number | null;
  /** Standard error of `quality`; 0 when unknown. */
  readonly qualityStderr: number;
  /** Weights, tied head, K/V at the context and activations. */
  readonly totalBytes: number;
  readonly downloadBytes: number;
  /** The model of the decode alone, before the learned correction. */
  readonly uncorrectedInterTokenMs: number;
  readonly predictedInterTokenMs: number;
  readonly fits: boolean;
  readonly meetsLatency: boolean;
  /** Why it does not fit; null when it does. */
  readonly misfit: string | null;
}

/** Left to the rest of the box when no grant is set: a tenth of what is available, at least 64 MiB. */
const reserveBytes = (availableBytes: number): number => Math.max(64 * 1024 * 1024, availableBytes * 0.1);

/**
 * How much the model may hold. The grant when there is one; else what is available now, plus what the device's current slice already
 * occupies of it, less the runtime and a reserve.
 */
export function memoryLimit(device: DeviceFacts, occupiedBytes: number): MemoryLimit {
  if (device.modelMemoryBytes > 0) return { bytes: device.modelMemoryBytes, from: 'grant' };
  const available = device.availableMemoryBytes + occupiedBytes;
  return { bytes: Math.max(0, Math.floor(available - device.runtimeMemoryBytes - reserveBytes(available))), from: 'available memory' };
}

export interface CandidateTerms {
  readonly device: DeviceFacts;
  readonly manifest: Manifest;
  readonly contextTokens: number;
  readonly targetInterTokenMs: number;
  readonly latencyCorrection: number;
  /** The slice that the device holds on disk and in memory now, if it is one of this manifest. */
  readonly heldSliceId: string | null;
}

/** Every slice of the quality frontier with its numbers on this device, smallest first, and the memory limit they were held against. */
export function candidatesFor(terms: CandidateTerms): { limit: MemoryLimit; candidates: Candidate[] } {
  const { device, manifest, contextTokens } = terms;
  const held = manifest.slices.find((slice) => slice.id === terms.heldSliceId);
  const costs = costsOf(manifest, contextTokens);
  const heldFootprint = held ? costs.footprint(held) : null;
  const limit = memoryLimit(device, heldFootprint?.totalBytes ?? 0);
  const diskBytes = device.freeDiskBytes > 0 ? device.freeDiskBytes + (heldFootprint?.downloadBytes ?? 0) : Number.POSITIVE_INFINITY;
  const candidates = costs.frontier.map((slice) => candidate(slice, costs.footprint(slice), terms, limit, diskBytes));
  return { limit, candidates: candidates.sort((a, b) => a.totalBytes - b.totalBytes) };
}

interface Costs {
  readonly frontier: readonly Slice[];
  readonly footprint: (slice: Slice) => Footprint;
}

/** A manifest never changes, and a fleet asks for the same one again and again. */
const known = new WeakMap<Manifest, Map<number, Costs>>();

function costsOf(manifest: Manifest, contextTokens: number): Costs {
  const byContext = known.get(manifest) ?? new Map<number, Costs>();
  known.set(manifest, byContext);
  const before = byContext.get(contextTokens);
  if (before) return before;
  const footprints = new Map(manifest.slices.map((slice) => [slice.id, footprint(manifest, slice, contextTokens)]));
  const footprintOf = (slice: Slice): Footprint => footprints.get(slice.id)!;
  const costs = { frontier: frontier(manifest.slices, { sizeOf: (slice) => footprintOf(slice).totalBytes }), footprint: footprintOf };
  byContext.set(contextTokens, costs);
  return costs;
}

function candidate(slice: Slice, bytes: Footprint, terms: CandidateTerms, limit: MemoryLimit, diskBytes: number): Candidate {
  const quality = qualityOf(slice);
  const uncorrected = predictInterTokenMs(
    { bytesPerToken: bytes.bytesPerToken, layers: slice.ffn.length },
    terms.device.memoryBandwidthBytesPerSecond,
  );
  const predicted = uncorrected * terms.latencyCorrection;
  const misfit =
    bytes.totalBytes > limit.bytes
      ? `needs ${formatBytes(bytes.totalBytes)} of memory, the ${limit.from === 'grant' ? 'grant is' : 'available memory leaves'} ${formatBytes(limit.bytes)}`
      : bytes.downloadBytes > diskBytes
        ? `needs ${formatBytes(bytes.downloadBytes)} of disk, ${formatBytes(diskBytes)} are free`
        : null;
  return {
    sliceId: slice.id,
    name: slice.name,
    quality: quality?.value ?? null,
    qualityStderr: quality?.stderr ?? 0,
    totalBytes: bytes.totalBytes,
    downloadBytes: bytes.downloadBytes,
    uncorrectedInterTokenMs: uncorrected,
    predictedInterTokenMs: predicted,
    fits: misfit === null,
    meetsLatency: predicted <= terms.targetInterTokenMs,
    misfit,
  };
}

/** The same candidates under another correction. */
export const corrected = (candidates: readonly Candidate[], correction: number, targetMs: number): Candidate[] =>
  candidates.map((candidate) => {
    const predictedInterTokenMs = candidate.uncorrectedInterTokenMs * correction;
    return { ...candidate, predictedInterTokenMs, meetsLatency: predictedInterTokenMs <= targetMs };
  });

/** Without a measured table a larger slice is taken for the better one. */
const score = (candidate: Candidate): number => candidate.quality ?? candidate.totalBytes / Number.MAX_SAFE_INTEGER - 1;

/** Two qualities that lie within two standard errors of their difference are the same, as far as anyone has measured. */
export function tied(a: Candidate, b: Candidate): boolean {
  if (a.quality === null || b.quality === null) return a.quality === b.quality && a.totalBytes === b.totalBytes;
  return Math.abs(a.quality - b.quality) <= 2 * Math.hypot(a.qualityStderr, b.qualityStderr);
}

/** Of higher quality, be it by less than can be measured. */
export const higher = (a: Candidate, b: Candidate): boolean => score(a) > score(b);

/** Better beyond a tie. */
export const better = (a: Candidate, b: Candidate): boolean => higher(a, b) && !tied(a, b);

/** The best quality; among those tied with it the smallest. Null for an empty list. */
export function bestOf(candidates: readonly Candidate[]): Candidate | null {
  const best = candidates.reduce<Candidate | null>((top, next) => (top === null || score(next) > score(top) ? next : top), null);
  if (!best) return null;
  return candidates.filter((next) => tied(next, best)).reduce((small, next) => (next.totalBytes < small.totalBytes ? next : small), best);
}

export const fastestOf = (candidates: readonly Candidate[]): Candidate | null =>
  candidates.reduce<Candidate | null>((fast, next) => (fast === null || next.predictedInterTokenMs < fast.predictedInterTokenMs ? next : fast), null);

export const describeLatency = (candidate: Candidate, targetMs: number): string =>
  `${formatMs(candidate.predictedInterTokenMs)} per token predicted, target ${formatMs(targetMs)}`;
