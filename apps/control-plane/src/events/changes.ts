import type { Observable } from 'rxjs';
import { keepScope } from '../database/scope.js';

/**
 * Turns events into the states they point at, for subscriptions: gives `load(id)` once for each id that changed since it was last
 * given. A slow reader gets fewer states, never older ones, and one id is held at most once, whatever the rate of events. States that
 * `load` no longer finds are left out; it runs in the scope of the caller of this function, whoever tells the event. Listens from the call on, until `return()`.
 */
export function changes<E, T>(
  events: Observable<E>,
  idOf: (event: E) => string,
  load: (id: string) => Promise<T | undefined>,
): AsyncIterableIterator<T> {
  const here = keepScope();
  const changed = new Set<string>();
  let wake: () => void = () => {};
  let closed = false;
  const subscription = events.subscribe((event) => {
    changed.add(idOf(event));
    wake();
  });

  const next = async (): Promise<IteratorResult<T>> => {
    for (;;) {
      if (closed) return { done: true, value: undefined };
      const [id] = changed;
      if (id === undefined) {
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      changed.delete(id);
      const value = await here(() => load(id));
      if (value !== undefined) return { done: false, value };
    }
  };

  return {
    next,
    return: () => {
      closed = true;
      subscription.unsubscribe();
      wake();
      return Promise.resolve({ done: true as const, value: undefined });
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
