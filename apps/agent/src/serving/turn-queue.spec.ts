import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { TurnQueue, type Claim, type Priority } from './turn-queue.js';

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

describe('turns among callers', () => {
  /** Fills the queue while one holds the turn; the order in which the others get it. */
  async function orderOf(claims: readonly Claim[]): Promise<string[]> {
    const queue = new TurnQueue(claims.length);
    const release = await (queue.enter(forever) as Promise<() => void>);
    const order: string[] = [];
    const done = claims.map(async (claim, index) => {
      const give = await (queue.enter(forever, claim) as Promise<() => void>);
      order.push(`${claim.caller}${index}`);
      give();
    });
    release();
    await Promise.all(done);
    return order;
  }
  const claim = (caller: string, priority: Priority = 'normal'): Claim => ({ caller, priority });

  it('alternate, however much one of them asks', async () => {
    expect(await orderOf([claim('a'), claim('a'), claim('a'), claim('b'), claim('b'), claim('c')])).toEqual(['a0', 'b3', 'c5', 'a1', 'b4', 'a2']);
  });

  it('go by class first', async () => {
    expect(await orderOf([claim('a', 'background'), claim('b'), claim('c', 'interactive'), claim('d', 'interactive')])).toEqual([
      'c2',
      'd3',
      'b1',
      'a0',
    ]);
  });

  it('pass nobody over more than sixteen times', async () => {
    const order = await orderOf([claim('slow', 'background'), ...Array.from({ length: 20 }, () => claim('busy', 'interactive'))]);
    expect(order.indexOf('slow0')).toBe(16);
  });
});
