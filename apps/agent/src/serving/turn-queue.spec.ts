import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { TurnQueue } from './turn-queue.js';

const forever = new AbortController().signal;

describe('turn queue', () => {
  it('lets nine in with room for eight waiting, and refuses the tenth', () => {
    const queue = new TurnQueue(8);
    const entries = Array.from({ length: 10 }, () => queue.enter(forever));
    expect(entries.map((entry) => entry === 'full')).toEqual([...Array(9).fill(false), true]);
    expect([queue.held, queue.waiting]).toEqual([1, 8]);
  });

  it('gives turns in order of arrival, one at a time, and forgets those that left', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: 1, maxLength: 20 }), async (leaves) => {
        const queue = new TurnQueue(leaves.length);
        const order: number[] = [];
        let inside = 0;
        const runs = leaves.map(async (leave, i) => {
          const abort = new AbortController();
          const entry = queue.enter(abort.signal);
          if (entry === 'full') throw new Error('full');
          if (leave && i > 0) abort.abort(new Error('left'));
          const release = await entry;
          expect(++inside).toBe(1);
          await Promise.resolve();
          order.push(i);
          inside -= 1;
          release();
          release();
        });
        const results = await Promise.allSettled(runs);
        const stayed = leaves.flatMap((leave, i) => (leave && i > 0 ? [] : [i]));
        expect(order).toEqual(stayed);
        expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(stayed.length);
        expect([queue.held, queue.waiting]).toEqual([0, 0]);
      }),
    );
  });
});
