import type { LatencyReport } from '@matfleet/protocol';

/** One answer as measured on this device. */
export interface LatencySample {
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly queueMs: number;
  /** From arrival to the first token; absent when none came. */
  readonly ttftMs?: number;
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
