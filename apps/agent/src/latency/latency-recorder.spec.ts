import { describe, expect, it } from '@jest/globals';
import { LatencyReport } from '@matfleet/protocol';
import fc from 'fast-check';
import { createLatencyRecorder, type LatencySample } from './latency-recorder.js';

const anySample: fc.Arbitrary<LatencySample> = fc.record({
  modelVersionId: fc.constantFrom('v1', 'v2'),
  sliceId: fc.constantFrom('s', 'm'),
  queueMs: fc.nat(1_000),
  ttftMs: fc.option(fc.nat(5_000), { nil: undefined }),
  interTokenMs: fc.array(fc.nat(400), { maxLength: 12 }),
  promptTokens: fc.nat(500),
  outputTokens: fc.nat(500),
  failed: fc.boolean(),
});

const sorted = (reports: LatencyReport[]) =>
  [...reports].sort((a, b) => `${a.modelVersionId}${a.sliceId}`.localeCompare(`${b.modelVersionId}${b.sliceId}`));

describe('latency recorder', () => {
  it('loses nothing when reports come back over the wire unacknowledged', () => {
    fc.assert(
      fc.property(fc.array(anySample), fc.array(anySample), (before, after) => {
        const once = createLatencyRecorder();
        for (const sample of [...before, ...after]) once.record(sample);

        const restored = createLatencyRecorder();
        before.forEach((sample) => restored.record(sample));
        const unacknowledged = restored.drain().map((report) => LatencyReport.decode(LatencyReport.encode(report).finish()));
        after.forEach((sample) => restored.record(sample));
        restored.restore(unacknowledged);

        expect(sorted(restored.drain())).toEqual(sorted(once.drain()));
      }),
    );
  });

  it('starts anew after a drain and keeps the slices apart', () => {
    const recorder = createLatencyRecorder();
    const sample = { modelVersionId: 'v1', queueMs: 0, ttftMs: 20, interTokenMs: [4, 5], promptTokens: 3, outputTokens: 3, failed: false };
    recorder.record({ ...sample, sliceId: 's' });
    recorder.record({ ...sample, sliceId: 'm' });
    recorder.record({ ...sample, sliceId: 'm', failed: true });
    const reports = recorder.drain();
    expect(reports.map(({ sliceId, outputTokens, failed }) => [sliceId, outputTokens, failed])).toEqual([
      ['s', 3n, 0n],
      ['m', 6n, 1n],
    ]);
    expect(reports[1]!.interTokenMs!.count).toBe(4n);
    expect(recorder.drain()).toEqual([]);
  });

  it('keeps the latest 32 slices while nobody drains', () => {
    const recorder = createLatencyRecorder();
    for (let i = 0; i < 40; i++)
      recorder.record({ modelVersionId: 'v', sliceId: `s${i}`, queueMs: 0, interTokenMs: [], promptTokens: 0, outputTokens: 1, failed: false });
    expect(recorder.drain().map(({ sliceId }) => sliceId)).toEqual(Array.from({ length: 32 }, (_, i) => `s${i + 8}`));
  });
});
