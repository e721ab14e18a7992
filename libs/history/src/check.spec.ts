import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { checkHistory, type HistoryReport } from './check.js';
import type { HistoryEvent, HistorySlot } from './event.js';

const at = (generation: number, sliceId = `slice-${generation}`): HistorySlot => ({ generation, modelVersionId: 'v1', sliceId });
const d = 'd1';
const opened = (epoch: number, device = d): HistoryEvent => ({ kind: 'session-opened', device, epoch });
const received = (epoch: number, slot: HistorySlot, device = d): HistoryEvent => ({ kind: 'desired-received', device, epoch, ...slot });
const written = (slot: HistorySlot, device = d): HistoryEvent => ({ kind: 'desired-written', device, ...slot });
const applied = (slot: HistorySlot, device = d): HistoryEvent => ({ kind: 'slot-applied', device, ...slot });
const sent = (epoch: number, sequence: number, device = d): HistoryEvent => ({
  kind: 'report-sent',
  device,
  epoch,
  sequence,
  generation: 1,
  phase: 'active',
});
const acknowledged = (epoch: number, sequence: number, device = d): HistoryEvent => ({ kind: 'report-acknowledged', device, epoch, sequence });
const submitted = (command: string): HistoryEvent => ({ kind: 'command-submitted', command });
const ran = (command: string, device = d): HistoryEvent => ({ kind: 'command-ran', device, command });
const ended = (command: string, effects = 1, outcome: 'succeeded' | 'failed' = 'succeeded'): HistoryEvent => ({
  kind: 'command-ended',
  command,
  outcome,
  effects,
});
const runs = (slot?: HistorySlot, gaveUp?: number, device = d): HistoryEvent => ({
  kind: 'device-ended',
  device,
  ...(slot && { runs: slot }),
  ...(gaveUp && { gaveUp }),
});
const shown = (desired?: HistorySlot, observed?: HistorySlot, device = d): HistoryEvent => ({
  kind: 'device-shown',
  device,
  ...(desired && { desired }),
  ...(observed && { observed }),
});

/** A device that is cut off, comes back, follows two documents and answers one inference. */
const sound = (device = d): HistoryEvent[] => [
  opened(1, device),
  received(1, at(1), device),
  received(1, at(1), device),
  applied(at(1), device),
  sent(1, 1, device),
  { kind: 'session-closed', device, epoch: 1 },
  opened(2, device),
  sent(2, 1, device),
  acknowledged(2, 1, device),
  submitted(`inference of ${device}`),
  ran(`attempt of ${device}`, device),
  received(2, at(3), device),
  applied(at(3), device),
  ended(`inference of ${device}`),
  written(at(1), device),
  written(at(2), device),
  written(at(3), device),
  runs(at(3), undefined, device),
  shown(at(3), at(3), device),
];

/** A bug somewhere in the product, as a history shows it, and the counter that must see it. */
const bugs: readonly { readonly bug: string; readonly rule: keyof HistoryReport; readonly history: readonly HistoryEvent[] }[] = [
  { bug: 'a command that is forgotten', rule: 'lost', history: [...sound(), submitted('i2')] },
  { bug: 'a command that succeeds without an effect', rule: 'lost', history: [...sound(), submitted('i2'), ended('i2', 0)] },
  { bug: 'a command with two effects', rule: 'doubled', history: [...sound(), submitted('i2'), ended('i2', 2)] },
  { bug: 'a command that failed and had an effect', rule: 'doubled', history: [...sound(), submitted('i2'), ended('i2', 1, 'failed')] },
  { bug: 'a command that ends twice', rule: 'doubled', history: [...sound(), submitted('i2'), ended('i2'), ended('i2')] },
  { bug: 'an attempt that a repeated message runs again', rule: 'doubled', history: [...sound(), ran('a2'), ran('a2')] },
  { bug: 'an attempt that runs on two devices', rule: 'doubled', history: [...sound(), ...sound('d2'), ran('a2'), ran('a2', 'd2')] },
  { bug: 'a document that a device applies twice', rule: 'doubled', history: [opened(1), received(1, at(1)), applied(at(1)), applied(at(1))] },
  { bug: 'an older document that a device applies', rule: 'generationViolations', history: [opened(1), applied(at(2)), applied(at(1))] },
  {
    bug: 'an older document sent after a newer one',
    rule: 'generationViolations',
    history: [opened(1), received(1, at(2)), received(1, at(1))],
  },
  { bug: 'two documents written under one generation', rule: 'generationViolations', history: [written(at(1)), written(at(1))] },
  { bug: 'a generation that is counted anew', rule: 'generationViolations', history: [written(at(7)), written(at(1))] },
  { bug: 'a session that gets the epoch of the one before', rule: 'epochViolations', history: [opened(4), opened(4)] },
  { bug: 'an epoch that goes back', rule: 'epochViolations', history: [opened(4), opened(3)] },
  {
    bug: 'a report of a session that was replaced, accepted all the same',
    rule: 'epochViolations',
    history: [opened(1), opened(2), sent(1, 9), acknowledged(1, 9)],
  },
  { bug: 'a device that stays behind its document', rule: 'diverged', history: [runs(at(1)), shown(at(2), at(1))] },
  { bug: 'a device whose last report was lost', rule: 'diverged', history: [runs(at(2)), shown(at(2), at(1))] },
  { bug: 'a device that is shown as running what it does not', rule: 'diverged', history: [runs(at(1)), shown(at(2), at(2))] },
  { bug: 'a device that gave up another generation', rule: 'diverged', history: [runs(at(1), 2), shown(at(3), at(1))] },
  {
    bug: 'a document that says something else on its way',
    rule: 'contradictions',
    history: [opened(1), received(1, at(1, 'large')), written(at(1, 'small'))],
  },
];

const COUNTERS = ['lost', 'doubled', 'generationViolations', 'epochViolations', 'diverged', 'contradictions'] as const;

describe('the checker', () => {
  it('finds nothing in a history without a bug', () => {
    const report = checkHistory([...sound(), ...sound('d2')]);
    expect(report).toMatchObject({ ok: true, violations: [], devices: 2, commands: 2, sessions: 4 });
    expect(COUNTERS.map((name) => report[name])).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it.each(bugs)('catches $bug', ({ rule, history }) => {
    const report = checkHistory(history);
    expect(report[rule]).toBeGreaterThan(0);
    expect(report.ok).toBe(false);
    expect(report.violations.some((text) => text.startsWith(rule))).toBe(true);
    // And nothing else: a rule that cries at every bug would name none of them.
    for (const other of COUNTERS) if (other !== rule) expect({ [other]: report[other] }).toEqual({ [other]: 0 });
  });

  it('accepts a device that gave the newest generation up and said so', () => {
    expect(checkHistory([runs(at(1), 2), shown(at(2), at(1))]).ok).toBe(true);
  });

  it('does not blame an answer that was on its way when the next session began', () => {
    expect(checkHistory([opened(1), received(1, at(2)), sent(1, 9), opened(2), acknowledged(1, 9), received(1, at(1))]).ok).toBe(true);
  });

  it('does not care how the events of different devices mingle', () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.boolean()), (turns) => {
        const [a, b] = [sound('d1'), sound('d2')];
        const mingled: HistoryEvent[] = [];
        while (a.length + b.length > 0) mingled.push((b.length === 0 || (a.length > 0 && turns.next().value) ? a : b).shift()!);
        expect(checkHistory(mingled).ok).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it('counts every violation and keeps the words of the first fifty', () => {
    const report = checkHistory(Array.from({ length: 80 }, () => opened(1)));
    expect(report.epochViolations).toBe(79);
    expect(report.violations).toHaveLength(50);
  });
});
