import { describe, expect, it } from '@jest/globals';
import { Subject } from 'rxjs';
import { changes } from './changes.js';

describe('changes', () => {
  it('gives the newest state once to a reader that slept through three events of one thing', async () => {
    const events = new Subject<string>();
    const state = new Map([['a', 0]]);
    const reader = changes(
      events,
      (id) => id,
      async (id) => state.get(id),
    );
    for (const value of [1, 2, 3]) {
      state.set('a', value);
      events.next('a');
    }
    events.next('gone');
    state.set('b', 9);
    events.next('b');
    expect(await reader.next()).toEqual({ done: false, value: 3 });
    expect(await reader.next()).toEqual({ done: false, value: 9 });
  });

  it('ends a reader that waits, and stops listening', async () => {
    const events = new Subject<string>();
    const reader = changes(
      events,
      (id) => id,
      async (id) => id,
    );
    const waiting = reader.next();
    await reader.return!();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(events.observed).toBe(false);
  });
});
