import { describe, expect, it } from '@jest/globals';
import { HedgeBudget, patienceMs } from './hedging.js';

describe('patience with a silent device', () => {
  it.each([
    [{ ttftMs: 400, interTokenMs: 50, queued: 0 }, false, 1_200],
    [{ ttftMs: 400, interTokenMs: 50, queued: 2 }, false, 3_600],
    [{ ttftMs: 400, interTokenMs: 50, queued: 2 }, true, 1_000],
    [{ ttftMs: 5, interTokenMs: 1, queued: 0 }, false, 150],
    [{ ttftMs: 5, interTokenMs: 1, queued: 0 }, true, 150],
  ])('of %o, once it has spoken %s: %i ms', (pace, spoke, expected) => {
    expect(patienceMs(pace, spoke)).toBe(expected);
  });
});

describe('the budget for second devices', () => {
  it('is a twentieth of the answers, after a few at the beginning', () => {
    const budget = new HedgeBudget();
    let asked = 0;
    for (let answer = 0; answer < 1_000; answer++) {
      budget.answerBegins();
      if (budget.take()) asked++;
    }
    expect(asked).toBeGreaterThanOrEqual(50);
    expect(asked).toBeLessThanOrEqual(60);
  });

  it('does not grow while it is not used', () => {
    const budget = new HedgeBudget();
    for (let answer = 0; answer < 10_000; answer++) budget.answerBegins();
    expect(Array.from({ length: 20 }, () => budget.take()).filter(Boolean)).toHaveLength(10);
  });
});
