import { emptyHistogram, histogramOf, mergeHistograms, type Histogram } from '@matfleet/model';
import type { LatencyReport, Histogram as WireHistogram } from '@matfleet/protocol';

/** One answer as measured on this device. */
export interface LatencySample {
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly queueMs: number;
  /** From arrival to the first token; absent when none came. */
  readonly ttftMs?: number | undefined;
  /** Between consecutive tokens. */
  readonly interTokenMs: readonly number[];
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly failed: boolean;
}

export interface LatencyRecorder {
  record(sample: LatencySample): void;
  /** What was measured since the last drain, one report per slice; starts anew. */
  drain(): LatencyReport[];
  /** Gives reports back that were not acknowledged; they merge with what came since. */
  restore(reports: readonly LatencyReport[]): void;
}

/** Slices that a device can have run between two heartbeats that were acknowledged; the oldest goes first. */
const MAX_SLICES = 32;

interface Totals {
  readonly ttftMs: Histogram;
  readonly interTokenMs: Histogram;
  readonly queueMs: Histogram;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly failed: number;
}

export function createLatencyRecorder(): LatencyRecorder {
  let bySlice = new Map<string, { readonly modelVersionId: string; readonly sliceId: string; totals: Totals }>();

  function add(modelVersionId: string, sliceId: string, totals: Totals): void {
    const key = `${modelVersionId}/${sliceId}`;
    const known = bySlice.get(key);
    if (known) known.totals = merge(known.totals, totals);
    else bySlice.set(key, { modelVersionId, sliceId, totals });
    if (bySlice.size > MAX_SLICES) bySlice.delete(bySlice.keys().next().value!);
  }

  return {
    record(sample) {
      add(sample.modelVersionId, sample.sliceId, {
        ttftMs: sample.ttftMs === undefined ? emptyHistogram : histogramOf([positive(sample.ttftMs)]),
        interTokenMs: histogramOf(sample.interTokenMs.map(positive)),
        queueMs: histogramOf([positive(sample.queueMs)]),
        promptTokens: sample.promptTokens,
        outputTokens: sample.outputTokens,
        failed: sample.failed ? 1 : 0,
      });
    },

    drain() {
      const reports = [...bySlice.values()].map(({ modelVersionId, sliceId, totals }) => toReport(modelVersionId, sliceId, totals));
      bySlice = new Map();
      return reports;
    },

    restore(reports) {
      const since = bySlice;
      bySlice = new Map();
      for (const report of reports) add(report.modelVersionId, report.sliceId, fromReport(report));
      for (const { modelVersionId, sliceId, totals } of since.values()) add(modelVersionId, sliceId, totals);
    },
  };
}

/** A clock that was set back must not cost a report. */
const positive = (ms: number): number => (Number.isFinite(ms) ? Math.max(0, ms) : 0);

const merge = (a: Totals, b: Totals): Totals => ({
  ttftMs: mergeHistograms(a.ttftMs, b.ttftMs),
  interTokenMs: mergeHistograms(a.interTokenMs, b.interTokenMs),
  queueMs: mergeHistograms(a.queueMs, b.queueMs),
  promptTokens: a.promptTokens + b.promptTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  failed: a.failed + b.failed,
});

const toReport = (modelVersionId: string, sliceId: string, totals: Totals): LatencyReport => ({
  modelVersionId,
  sliceId,
  ttftMs: toWire(totals.ttftMs),
  interTokenMs: toWire(totals.interTokenMs),
  queueMs: toWire(totals.queueMs),
  promptTokens: BigInt(totals.promptTokens),
  outputTokens: BigInt(totals.outputTokens),
  failed: BigInt(totals.failed),
});

const fromReport = (report: LatencyReport): Totals => ({
  ttftMs: fromWire(report.ttftMs),
  interTokenMs: fromWire(report.interTokenMs),
  queueMs: fromWire(report.queueMs),
  promptTokens: Number(report.promptTokens),
  outputTokens: Number(report.outputTokens),
  failed: Number(report.failed),
});

const toWire = (h: Histogram): WireHistogram => ({ ...h, counts: h.counts.map(BigInt), zeroCount: BigInt(h.zeroCount), count: BigInt(h.count) });

const fromWire = (h: WireHistogram | undefined): Histogram =>
  h === undefined ? emptyHistogram : { ...h, counts: h.counts.map(Number), zeroCount: Number(h.zeroCount), count: Number(h.count) };
