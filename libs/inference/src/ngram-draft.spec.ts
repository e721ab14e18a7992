import { describe, expect, it } from '@jest/globals';
import { eager, paceAfter, proposeDraft } from './ngram-draft.js';

describe('a draft', () => {
  it('is what followed the last three tokens when they stood there before', () => {
    expect(proposeDraft([1, 2, 3, 7, 8, 9, 3, 4, 1, 2, 3], 2)).toEqual([7, 8]);
  });

  it('prefers a longer match to a later one, and of equal ones the latest', () => {
    expect(proposeDraft([5, 1, 2, 70, 9, 1, 2, 71, 8, 5, 1, 2], 1)).toEqual([70]);
    expect(proposeDraft([1, 2, 70, 1, 2, 71, 1, 2], 1)).toEqual([71]);
  });

  it('may run into the tokens that it matched: a loop goes on', () => {
    expect(proposeDraft([4, 4, 4, 4], 8)).toEqual([4]);
    expect(proposeDraft([1, 2, 3, 1, 2, 3], 8)).toEqual([1, 2, 3]);
  });

  it('is empty where nothing repeats and where none is wanted', () => {
    expect(proposeDraft([1, 2, 3, 4], 4)).toEqual([]);
    expect(proposeDraft([1], 4)).toEqual([]);
    expect(proposeDraft([9, 7, 5, 9], 4)).toEqual([]); // one token is no match
    expect(proposeDraft([1, 1, 1], 0)).toEqual([]);
    expect(proposeDraft([1, 1, 1], -1)).toEqual([]);
  });
});

describe('the pace of drafts', () => {
  it('waits twice as long after each draft of which nothing was right, at most 32 tokens', () => {
    const waits: number[] = [];
    let pace = eager;
    for (let miss = 0; miss < 8; miss++) {
      pace = paceAfter(pace, 4, 0);
      waits.push(pace.wait);
      for (let left = pace.wait; left > 0; left--) pace = paceAfter(pace, 0, 0);
      expect(pace.wait).toBe(0);
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 32, 32]);
  });

  it('is eager again after a draft that helped', () => {
    expect(paceAfter({ wait: 0, misses: 5 }, 4, 1)).toEqual(eager);
  });
});
