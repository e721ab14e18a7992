import { describe, expect, it } from '@jest/globals';
import { Report } from '@matfleet/protocol';
import fc from 'fast-check';
import { ReportSpool } from './spool.js';

const report = (generation: number, fetchedBytes = 0) => Report.fromPartial({ generation: BigInt(generation), fetchedBytes: BigInt(fetchedBytes) });
const generations = (spool: ReportSpool) => spool.pending().map((it) => Number(it.generation));

describe('reports that nobody has acknowledged', () => {
  it('keep only the newest of a generation', () => {
    const spool = new ReportSpool();
    spool.add(report(1, 10));
    spool.add(report(2, 20));
    spool.add(report(1, 30));
    expect(spool.pending().map((it) => [it.generation, it.fetchedBytes])).toEqual([
      [2n, 20n],
      [1n, 30n],
    ]);
  });

  it('lose the oldest generations beyond 16, so that a long time offline costs little', () => {
    const spool = new ReportSpool();
    for (let generation = 1; generation <= 100; generation++) spool.add(report(generation));
    expect(generations(spool)).toEqual(Array.from({ length: 16 }, (_, i) => 85 + i));
  });

  it('stay when the acknowledgement is for an older report of the same generation', () => {
    const spool = new ReportSpool();
    const first = spool.add(report(1, 10));
    const second = spool.add(report(1, 20));
    spool.acknowledge(first.sequence);
    expect(spool.pending()).toEqual([second]);
    spool.acknowledge(second.sequence);
    expect(spool.pending()).toEqual([]);
  });

  it('are numbered upwards, wait in order, and always include the newest report until it is acknowledged', () => {
    const actions = fc.array(
      fc.oneof(
        fc.nat({ max: 30 }).map((add) => ({ add })),
        fc.nat({ max: 60 }).map((acknowledge) => ({ acknowledge })),
      ),
    );
    fc.assert(
      fc.property(actions, (life) => {
        const spool = new ReportSpool();
        let newest: Report | undefined;
        let acknowledged = 0n;
        for (const action of life) {
          if ('add' in action) {
            const added = spool.add(report(action.add));
            expect(added.sequence).toBe((newest?.sequence ?? 0n) + 1n);
            newest = added;
          } else {
            // A control plane acknowledges only what it has seen.
            const sequence = BigInt(Math.min(action.acknowledge, Number(newest?.sequence ?? 0n)));
            spool.acknowledge(sequence);
            if (sequence > acknowledged) acknowledged = sequence;
          }
          const sequences = spool.pending().map(({ sequence }) => sequence);
          expect(sequences).toEqual([...sequences].sort((a, b) => Number(a - b)));
          expect(sequences.every((sequence) => sequence > acknowledged)).toBe(true);
          expect(sequences.length).toBeLessThanOrEqual(16);
          if (newest && newest.sequence > acknowledged) expect(spool.pending().at(-1)).toEqual(newest);
        }
      }),
    );
  });
});
