import { describe, expect, it } from '@jest/globals';
import type { Attempt, Inference } from './api-types.js';
import { later } from './settle.js';

const attempt = { ordinal: 1 } as Attempt;

function view(state: Inference['state'], attempts: number, answer: string | null): Inference {
  return {
    id: 'i',
    state,
    answer,
    error: null,
    modelVersionId: null,
    sliceId: null,
    deviceId: null,
    attempts: Array.from({ length: attempts }, () => attempt),
    createdAt: '',
    finishedAt: null,
  };
}

describe('later view of an inference', () => {
  it.each([
    ['a finished one over a running one', view('running', 2, 'long partial answer'), view('succeeded', 1, 'short')],
    ['more attempts over a longer answer: a fallback begins anew', view('running', 1, 'half an answ'), view('running', 2, null)],
    ['more text within one attempt', view('running', 1, 'ab'), view('running', 1, 'abc')],
  ])('takes %s, in whichever order they come', (_, earlier, newer) => {
    expect(later(earlier, newer)).toBe(newer);
    expect(later(newer, earlier)).toBe(newer);
  });
});
