import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { parseRange } from './byte-range.js';

describe('parseRange', () => {
  it.each([
    ['bytes=0-9', { kind: 'part', from: 0, to: 10 }],
    ['bytes=90-', { kind: 'part', from: 90, to: 100 }],
    ['bytes=90-500', { kind: 'part', from: 90, to: 100 }],
    ['bytes=-10', { kind: 'part', from: 90, to: 100 }],
    ['bytes=-500', { kind: 'part', from: 0, to: 100 }],
    ['bytes=100-', { kind: 'unsatisfiable' }],
    ['bytes=-0', { kind: 'unsatisfiable' }],
    ['bytes=9-1', { kind: 'whole' }],
    ['bytes=0-1,4-5', { kind: 'whole' }],
    ['lines=1-2', { kind: 'whole' }],
    ['bytes=-', { kind: 'whole' }],
    [undefined, { kind: 'whole' }],
  ])('reads %s of 100 bytes', (header, expected) => expect(parseRange(header, 100)).toEqual(expected));

  it('never gives a part outside the file, nor an empty one', () => {
    const number = fc.nat(2_000);
    fc.assert(
      fc.property(fc.option(number), fc.option(number), number, (first, last, bytes) => {
        const range = parseRange(`bytes=${first ?? ''}-${last ?? ''}`, bytes);
        if (range.kind === 'part') expect(0 <= range.from && range.from < range.to && range.to <= bytes).toBe(true);
      }),
    );
  });
});
