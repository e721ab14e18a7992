import { useCallback, useState } from 'react';
import { listUpdates } from './api.js';
import type { Update } from './api-types.js';
import { updateChanged } from './documents.js';
import { useOnLive, useSubscription } from './live.js';

const kept = 20;

/** Newest first, at most twenty. */
export function useUpdates(): { readonly updates: readonly Update[]; readonly add: (update: Update) => void } {
  const [updates, setUpdates] = useState<readonly Update[]>([]);
  const add = useCallback((update: Update) => setUpdates((known) => newestFirst([update, ...known.filter(({ id }) => id !== update.id)])), []);
  useSubscription<{ updateChanged: Update }>(
    updateChanged,
    useCallback((event) => add(event.updateChanged), [add]),
  );
  useOnLive(
    useCallback(() => {
      listUpdates().then(
        (read) => setUpdates(newestFirst(read)),
        (cause: unknown) => console.error('updates could not be read', cause),
      );
    }, []),
  );
  return { updates, add };
}

const newestFirst = (updates: readonly Update[]): readonly Update[] =>
  [...updates].sort((a, b) => b.createdAt.localeCompare(a.createdAt)).slice(0, kept);
