import { emptyHistogram, histogramOf, mergeHistograms, quantile, type Histogram } from '@matfleet/model';

const BATCH = 1_024;
const REASONS_KEPT = 20;

/** What the whole simulation counts. */
export class Statistics {
  readonly startedAtMs = performance.now();
  enrolled = 0;
  connected = 0;
  converged = 0;
  /** Sessions that were welcomed, all devices together. */
  sessions = 0;
  reports = 0;
  beats = 0;
  errors = 0;
  /** When the n-th device was first connected, or the last one converged; milliseconds since the start. */
  connectedAtMs: number[] = [];
  convergedAtMs = 0;
  private readonly reasons = new Map<string, number>();
  private histogram: Histogram = emptyHistogram;
  private batch: number[] = [];

  get elapsedMs(): number {
    return performance.now() - this.startedAtMs;
  }

  online(online: boolean): void {
    this.connected += online ? 1 : -1;
    if (!online) return;
    this.sessions += 1;
    if (this.connected > this.connectedAtMs.length) this.connectedAtMs.push(this.elapsedMs);
  }

  settled(settled: boolean): void {
    this.converged += settled ? 1 : -1;
    if (settled) this.convergedAtMs = this.elapsedMs;
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

  ackMs(q: number): number | undefined {
    this.fold();
    return quantile(this.histogram, q);
  }

  /** Forgets the latencies so far, so that a steady state can be measured by itself. */
  resetAcks(): void {
    this.batch = [];
    this.histogram = emptyHistogram;
  }

  summary(): Record<string, unknown> {
    const { enrolled, connected, converged, sessions, reports, beats, errors, elapsedMs, convergedAtMs } = this;
    return {
      ...{ enrolled, connected, converged, sessions, reports, beats, errors },
      elapsedMs: Math.round(elapsedMs),
      allConnectedAtMs: Math.round(this.connectedAtMs.at(-1) ?? 0),
      lastConvergedAtMs: Math.round(convergedAtMs),
      ackP50Ms: round(this.ackMs(0.5)),
      ackP99Ms: round(this.ackMs(0.99)),
      errorReasons: Object.fromEntries(this.reasons),
    };
  }

  private fold(): void {
    if (this.batch.length === 0) return;
    this.histogram = mergeHistograms(this.histogram, histogramOf(this.batch));
    this.batch = [];
  }
}

const round = (ms: number | undefined): number | null => (ms === undefined ? null : Number(ms.toFixed(2)));
