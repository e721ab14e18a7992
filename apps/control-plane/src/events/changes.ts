import type { Observable } from 'rxjs';

/**
 * Turns events into the states they point at, for subscriptions: yields `load(id)` once for each id that changed since it was last
 * yielded. A slow reader gets fewer states, never older ones, and at most one id a thing is held, whatever the rate of events.
 * States that `load` no longer finds are left out.
 */
export async function* changes<E, T>(events: Observable<E>, idOf: (event: E) => string, load: (id: string) => Promise<T | undefined>): AsyncGenerator<T, void, undefined> {
  const waiting = new Set<string>();
  let wake: (() => void) | undefined;
  const subscription = events.subscribe((event) => {
    waiting.add(idOf(event));
    wake?.();
  });
  try {
    for (;;) {
      const [id] = waiting;
      if (id === undefined) {
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      waiting.delete(id);
      const state = await load(id);
      if (state !== undefined) yield state;
    }
  } finally {
    subscription.unsubscribe();
  }
}
