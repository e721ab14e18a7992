import { emptyHistogram, type Histogram, mergeHistograms, quantile } from '@matfleet/model';
import type { Gates } from './rollout-plan.js';
import { formatMs } from './units.js';

/** What devices measured on one slice in the time of a wave. Milliseconds. */
export interface Measured {
  readonly sliceId: string;
  readonly ttft: Histogram;
  readonly interToken: Histogram;
  readonly answered: number;
  readonly failed: number;
}

/** Tokens of the version before in its golden answers, and those of them that the new one gives too. */
export interface Agreement {
  readonly equal: number;
  readonly compared: number;
}

export interface GateEvidence {
  /** The wave's devices on the new version, by slice. */
  readonly changed: readonly Measured[];
  /** Devices that ran the version before meanwhile, by slice. */
  readonly control: readonly Measured[];
  /** The wave's devices on the version before, until they changed: stands in where no control device ran the same slice. */
  readonly before: readonly Measured[];
  /** Null where nothing could be compared. */
  readonly agreement: Agreement | null;
}

export type GateName = 'ttft' | 'inter-token' | 'errors' | 'agreement';
export interface GateVerdict {
  readonly gate: GateName;
  readonly verdict: 'passed' | 'failed' | 'unknown';
  /** With the numbers. */
  readonly reason: string;
}

/** Every gate that was asked for, each with its numbers. */
export function judgeGates(gates: Gates, evidence: GateEvidence): GateVerdict[] {
  const verdicts: GateVerdict[] = [];
  if (gates.ttftRatio !== undefined) verdicts.push(latency('ttft', gates.ttftRatio, gates.minSample, evidence, (measured) => measured.ttft));
  if (gates.interTokenRatio !== undefined)
    verdicts.push(latency('inter-token', gates.interTokenRatio, gates.minSample, evidence, (measured) => measured.interToken));
  if (gates.errorPoints !== undefined) verdicts.push(errors(gates.errorPoints, gates.minSample, evidence));
  if (gates.agreementPercent !== undefined) verdicts.push(agreement(gates.agreementPercent, evidence.agreement));
  return verdicts;
}

/**
 * p95 against the control group, slice by slice: a wave of small devices is no slower for being small. The ratios are joined as a geometric
 * mean, weighed by the wave's samples.
 */
function latency(
  gate: GateName,
  most: number,
  minSample: number,
  { changed, control, before }: GateEvidence,
  of: (measured: Measured) => Histogram,
): GateVerdict {
  const compared: { ratio: number; weight: number; text: string }[] = [];
  for (const measured of bySlice(changed)) {
    const mine = of(measured);
    for (const [group, side] of [
      [control, 'the control group'],
      [before, 'the same devices before'],
    ] as const) {
      const other = of(bySlice(group).find(({ sliceId }) => sliceId === measured.sliceId) ?? none(measured.sliceId));
      if (mine.count < minSample || other.count < minSample) continue;
      const [now, then] = [quantile(mine, 0.95)!, quantile(other, 0.95)!];
      if (then <= 0) continue;
      compared.push({ ratio: now / then, weight: mine.count, text: `${formatMs(now)} on ${measured.sliceId}, ${formatMs(then)} in ${side}` });
      break;
    }
  }
  if (compared.length === 0) return { gate, verdict: 'unknown', reason: `fewer than ${minSample} answers to compare on one slice` };
  const weight = compared.reduce((sum, { weight: part }) => sum + part, 0);
  const ratio = Math.exp(compared.reduce((sum, part) => sum + part.weight * Math.log(part.ratio), 0) / weight);
  const shown = compared.slice(0, 3).map(({ text }) => text);
  return {
    gate,
    verdict: ratio > most ? 'failed' : 'passed',
    reason: `p95 is ${ratio.toFixed(2)} times the control's, at most ${most}: ${shown.join('; ')}`,
  };
}

function errors(points: number, minSample: number, { changed, control, before }: GateEvidence): GateVerdict {
  const gate = 'errors';
  const mine = counts(changed);
  const other = [counts(control), counts(before)].find(({ total }) => total >= minSample);
  if (mine.total < minSample || !other) return { gate, verdict: 'unknown', reason: `fewer than ${minSample} inferences to compare` };
  const [now, then] = [(100 * mine.failed) / mine.total, (100 * other.failed) / other.total];
  return {
    gate,
    verdict: now - then > points ? 'failed' : 'passed',
    reason: `${now.toFixed(1)} % of ${mine.total} inferences failed, ${then.toFixed(1)} % of ${other.total} in the control group; at most ${points} points more`,
  };
}

function agreement(least: number, found: Agreement | null): GateVerdict {
  const gate = 'agreement';
  if (!found || found.compared === 0)
    return { gate, verdict: 'unknown', reason: 'no device could compare its golden answers with the version before' };
  const percent = (100 * found.equal) / found.compared;
  return {
    gate,
    verdict: percent < least ? 'failed' : 'passed',
    reason: `${found.equal} of ${found.compared} tokens of the golden answers are those of the version before, ${percent.toFixed(1)} %; at least ${least} %`,
  };
}

const none = (sliceId: string): Measured => ({ sliceId, ttft: emptyHistogram, interToken: emptyHistogram, answered: 0, failed: 0 });

function bySlice(measured: readonly Measured[]): Measured[] {
  const slices = new Map<string, Measured>();
  for (const one of measured) {
    const sum = slices.get(one.sliceId) ?? none(one.sliceId);
    slices.set(one.sliceId, {
      sliceId: one.sliceId,
      ttft: mergeHistograms(sum.ttft, one.ttft),
      interToken: mergeHistograms(sum.interToken, one.interToken),
      answered: sum.answered + one.answered,
      failed: sum.failed + one.failed,
    });
  }
  return [...slices.values()];
}

function counts(measured: readonly Measured[]): { failed: number; total: number } {
  const failed = measured.reduce((sum, one) => sum + one.failed, 0);
  return { failed, total: failed + measured.reduce((sum, one) => sum + one.answered, 0) };
}
