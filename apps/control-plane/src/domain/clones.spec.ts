import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type BootHistory, CLONE_RETURNS, judgeBoot } from './clones.js';

const WINDOW_MS = 600_000;

/** Feeds Hellos, one a second, and answers at which one (from 1) a clone was seen. */
function firstClone(boots: readonly string[], stepMs = 1_000): number | undefined {
  let history: BootHistory | null = null;
  for (const [index, boot] of boots.entries()) {
    const verdict = judgeBoot(history, boot, index * stepMs, WINDOW_MS);
    if (verdict.clone) return index + 1;
    history = verdict.history;
  }
  return undefined;
}

describe('judgeBoot', () => {
  it('sees two machines that take the session from each other', () => {
    expect(firstClone(['a', 'b', 'a', 'b', 'a'])).toBe(5);
    expect(judgeBoot({ current: 'b', superseded: ['a'], returnsMs: [1_000, 2_000] }, 'a', 5_000, WINDOW_MS).clone).toContain('3 times within 4 s');
  });

  it('sees three machines, and two of which one restarts now and then', () => {
    expect(firstClone(['a', 'b', 'c', 'a', 'b', 'c'])).toBe(6);
    expect(firstClone(['a', 'b', 'a', 'b2', 'a', 'b3', 'a'])).toBe(7);
  });

  it('takes no restart or reconnect for a clone, nor a Hello of an ended process that arrives late', () => {
    // A process says Hello any number of times and ends. The last Hello of one of them arrives among those of the next.
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 2, maxLength: 40 }),
        fc.nat(),
        fc.nat(),
        fc.integer({ min: 1, max: 60_000 }),
        (hellos, restart, after, stepMs) => {
          const lives = hellos.map((count, index) => Array.from({ length: count }, () => `boot-${index}`));
          const next = 1 + (restart % (lives.length - 1));
          lives[next]!.splice(1 + (after % lives[next]!.length), 0, `boot-${next - 1}`);
          expect(firstClone(lives.flat(), stepMs)).toBeUndefined();
        },
      ),
    );
  });

  it('sees any two live processes within a few turns, whatever else happens', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('a', 'b'), { minLength: 40, maxLength: 80 }), (boots) => {
        const turns = boots.filter((boot, index) => index > 0 && boots[index - 1] !== boot).length;
        fc.pre(turns > CLONE_RETURNS + 1);
        expect(firstClone(boots)).toBeDefined();
      }),
    );
  });

  it('forgets returns that lie longer ago than the window', () => {
    expect(firstClone(['a', 'b', 'a', 'b', 'a', 'b', 'a'], WINDOW_MS / 2 + 1)).toBeUndefined();
  });

  it('keeps a bounded history of a device that restarts for ever', () => {
    let history: BootHistory | null = null;
    for (let boot = 0; boot < 1_000; boot++) history = judgeBoot(history, `boot-${boot}`, boot, WINDOW_MS).history;
    expect(history!.superseded).toHaveLength(16);
    expect(history!.superseded.at(-1)).toBe('boot-998');
  });
});
