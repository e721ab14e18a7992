import { emptyHistogram, histogramOf, mergeHistograms, quantile, type Histogram } from '@matfleet/model';

const BATCH = 1_024;
const REASONS_KEPT = 20;

/** What a simulation has counted up to a moment; those of several processes add up. */
export interface Counts {
  readonly started: number;
  readonly enrolled: number;
  readonly connected: number;
  readonly converged: number;
  /** Sessions that were welcomed, all devices together. */
  readonly sessions: number;
  readonly reports: number;
  readonly beats: number;
  readonly errors: number;
  readonly elapsedMs: number;
  /** When the last device was first connected, and when the last one converged; since the start. */
  readonly allConnectedAtMs: number;
  readonly lastConvergedAtMs: number;
  readonly rssBytes: number;
  readonly emptyRssBytes: number;
  readonly reasons: Readonly<Record<string, number>>;
  /** Milliseconds from a beat to its answer. */
  readonly acks: Histogram;
}

const ADDED = ['started', 'enrolled', 'connected', 'converged', 'sessions', 'reports', 'beats', 'errors', 'rssBytes', 'emptyRssBytes'] as const;
const LATEST = ['elapsedMs', 'allConnectedAtMs', 'lastConvergedAtMs'] as const;

export function addCounts(all: readonly Counts[]): Counts {
  const reasons: Record<string, number> = {};
  for (const counts of all) for (const [reason, count] of Object.entries(counts.reasons)) reasons[reason] = (reasons[reason] ?? 0) + count;
  const numbers = {
    ...Object.fromEntries(ADDED.map((key) => [key, all.reduce((sum, counts) => sum + counts[key], 0)])),
    ...Object.fromEntries(LATEST.map((key) => [key, Math.max(0, ...all.map((counts) => counts[key]))])),
  } as Record<(typeof ADDED)[number] | (typeof LATEST)[number], number>;
  return { ...numbers, reasons, acks: all.reduce((sum, { acks }) => mergeHistograms(sum, acks), emptyHistogram) };
}

/** For people and for JSON. */
export function summarise(counts: Counts): Record<string, unknown> {
  const { started, enrolled, connected, converged, sessions, reports, beats, errors, elapsedMs, acks, reasons, rssBytes, emptyRssBytes } = counts;
  return {
    ...{ started, enrolled, connected, converged, sessions, reports, beats, errors },
    elapsedMs: Math.round(elapsedMs),
    allConnectedAtMs: Math.round(counts.allConnectedAtMs),
    lastConvergedAtMs: Math.round(counts.lastConvergedAtMs),
    ackP50Ms: round(quantile(acks, 0.5)),
    ackP99Ms: round(quantile(acks, 0.99)),
    acksTimed: acks.count,
    errorReasons: reasons,
    ...{ rssBytes, emptyRssBytes },
  };
}

/** What the simulation of one process counts. */
export class Statistics {
  readonly startedAtMs = performance.now();
  started = 0;
  enrolled = 0;
  connected = 0;
  converged = 0;
  sessions = 0;
  reports = 0;
  beats = 0;
  errors = 0;
  private mostConnected = 0;
  private allConnectedAtMs = 0;
  private lastConvergedAtMs = 0;
  private readonly reasons = new Map<string, number>();
  private readonly emptyRssBytes = process.memoryUsage.rss();
  private histogram: Histogram = emptyHistogram;
  private batch: number[] = [];

  online(online: boolean): void {
    this.connected += online ? 1 : -1;
    if (!online) return;
    this.sessions += 1;
    if (this.connected <= this.mostConnected) return;
    this.mostConnected = this.connected;
    this.allConnectedAtMs = this.elapsedMs;
  }

  settled(settled: boolean): void {
    this.converged += settled ? 1 : -1;
    if (settled) this.lastConvergedAtMs = this.elapsedMs;
  }

  lost(why: string): void {
    this.errors += 1;
    const reason = why.replace(/\d+/g, 'n').slice(0, 80);
    if (this.reasons.has(reason) || this.reasons.size < REASONS_KEPT) this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }

  acknowledged(ms: number): void {
    this.beats += 1;
    this.batch.push(ms);
    if (this.batch.length >= BATCH) this.fold();
  }

  /** Forgets the latencies so far, so that a steady state can be measured by itself. */
  resetAcks(): void {
    this.batch = [];
    this.histogram = emptyHistogram;
  }

  counts(): Counts {
    this.fold();
    const {
      started,
      enrolled,
      connected,
      converged,
      sessions,
      reports,
      beats,
      errors,
      elapsedMs,
      allConnectedAtMs,
      lastConvergedAtMs,
      emptyRssBytes,
    } = this;
    return {
      ...{ started, enrolled, connected, converged, sessions, reports, beats, errors, elapsedMs, allConnectedAtMs, lastConvergedAtMs, emptyRssBytes },
      rssBytes: process.memoryUsage.rss(),
      reasons: Object.fromEntries(this.reasons),
      acks: this.histogram,
    };
  }

  private get elapsedMs(): number {
    return performance.now() - this.startedAtMs;
  }

  private fold(): void {
    if (this.batch.length === 0) return;
    this.histogram = mergeHistograms(this.histogram, histogramOf(this.batch));
    this.batch = [];
  }
}

const round = (ms: number | undefined): number | null => (ms === undefined ? null : Number(ms.toFixed(2)));
