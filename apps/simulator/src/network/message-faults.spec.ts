import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { seededRandom } from '@matfleet/model';
import { MessageLane } from './message-faults.js';

describe('one direction of a stream under message faults', () => {
  it('loses nothing once the fault is over, and repeats nothing without duplication', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 60 }), fc.double({ min: 0, max: 1, noNaN: true }), (seed, count, reorder) => {
        const came: number[] = [];
        const lane = new MessageLane<number>((message) => came.push(message));
        const random = seededRandom(seed);
        for (let i = 0; i < count; i++) lane.pass(i, { duplicate: 0, reorder, random }, true);
        lane.pass(count, { duplicate: 0, reorder: 0, random }, true);
        expect([...came].sort((a, b) => a - b)).toEqual(Array.from({ length: count + 1 }, (_, i) => i));
        // Held back behind one message, never further.
        for (const [at, message] of came.entries()) expect(Math.abs(at - message)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('swaps neighbours and repeats when the dice say so, but never the message that opens a session', () => {
    const came: string[] = [];
    const lane = new MessageLane<string>((message) => came.push(message));
    const always = { duplicate: 1, reorder: 1, random: () => 0 };
    lane.pass('hello', always, false);
    lane.pass('a', always, true);
    lane.pass('b', always, true);
    expect(came).toEqual(['hello', 'b', 'b', 'a']);
  });
});
