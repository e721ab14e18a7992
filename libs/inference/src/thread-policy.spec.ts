import { describe, expect, it } from '@jest/globals';
import { threadPolicy } from './thread-policy.js';

describe('threads of the engine', () => {
  it('wait idly beside a neighbour and busily inside a pass on a box of their own', () => {
    expect(threadPolicy('shared', 2048, 2)).toEqual({ threads: 2, spinning: 'never' });
    expect(threadPolicy('dedicated', 2048, 2)).toEqual({ threads: 2, spinning: 'pass' });
  });

  it('are one for a small model and at most four for a large one', () => {
    expect(threadPolicy('shared', 1023, 8).threads).toBe(1);
    expect(threadPolicy('shared', 1024, 1).threads).toBe(1);
    expect(threadPolicy('dedicated', 1024, 8).threads).toBe(4);
  });
});
