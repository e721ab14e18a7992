import { emptyHistogram, mean, mergeHistograms, quantile, type Histogram } from '@matfleet/model';
import type { LatencySummary } from './device.js';

/** What a device measured on one slice between two heartbeats. Milliseconds. */
export interface LatencyReport {
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly ttft: Histogram;
  readonly interToken: Histogram;
  readonly queue: Histogram;
  readonly outputTokens: number;
  readonly failed: number;
}

export interface LatencyWindow extends LatencyReport {
  readonly deviceId: string;
  readonly tenantId: string;
  /** Milliseconds since 1970. */
  readonly startMs: number;
}

/** The open window of each device. A window covers one slice: another slice, or its age, closes it. */
export class LatencyWindows {
  private readonly open = new Map<string, LatencyWindow>();

  constructor(private readonly windowMs: number) {}

  /** Merges a report in; returns the window that this closed, if any. */
  add({ deviceId, tenantId }: Pick<LatencyWindow, 'deviceId' | 'tenantId'>, report: LatencyReport, nowMs: number): LatencyWindow | null {
    const held = this.open.get(deviceId);
    const same = held && held.modelVersionId === report.modelVersionId && held.sliceId === report.sliceId && nowMs - held.startMs < this.windowMs;
    this.open.set(deviceId, same ? merge(held, report) : { ...report, deviceId, tenantId, startMs: nowMs });
    return held && !same ? held : null;
  }

  /** Windows whose time is over. */
  closeDue(nowMs: number): LatencyWindow[] {
    const due = [...this.open.values()].filter((window) => nowMs - window.startMs >= this.windowMs);
    for (const window of due) this.open.delete(window.deviceId);
    return due;
  }

  closeAll(): LatencyWindow[] {
    const all = [...this.open.values()];
    this.open.clear();
    return all;
  }

  openWindow(deviceId: string): LatencyWindow | undefined {
    return this.open.get(deviceId);
  }
}

const merge = (window: LatencyWindow, report: LatencyReport): LatencyWindow => ({
  ...window,
  ttft: mergeHistograms(window.ttft, report.ttft),
  interToken: mergeHistograms(window.interToken, report.interToken),
  queue: mergeHistograms(window.queue, report.queue),
  outputTokens: window.outputTokens + report.outputTokens,
  failed: window.failed + report.failed,
});

/** Null without a single answered inference. */
export function summarise(windows: readonly LatencyReport[]): LatencySummary | null {
  const ttft = windows.reduce((sum, window) => mergeHistograms(sum, window.ttft), emptyHistogram);
  const interToken = windows.reduce((sum, window) => mergeHistograms(sum, window.interToken), emptyHistogram);
  if (ttft.count === 0 && interToken.count === 0) return null;
  const interTokenMeanMs = mean(interToken);
  return {
    ttftMs: { p50: quantile(ttft, 0.5) ?? 0, p95: quantile(ttft, 0.95) ?? 0 },
    interTokenMs: { p50: quantile(interToken, 0.5) ?? 0, p95: quantile(interToken, 0.95) ?? 0 },
    tokensPerSecond: interTokenMeanMs ? 1_000 / interTokenMeanMs : 0,
    samples: ttft.count,
  };
}
