import { useCallback, useState } from 'react';
import { listRollouts } from './api.js';
import type { Rollout } from './api-types.js';
import { rolloutChanged } from './documents.js';
import { useOnLive, useSubscription } from './live.js';

const kept = 20;

/** Newest first, at most twenty. */
export function useRollouts(): { readonly rollouts: readonly Rollout[]; readonly add: (rollout: Rollout) => void } {
  const [rollouts, setRollouts] = useState<readonly Rollout[]>([]);
  const add = useCallback((rollout: Rollout) => setRollouts((known) => newestFirst([rollout, ...known.filter(({ id }) => id !== rollout.id)])), []);
  useSubscription<{ rolloutChanged: Rollout }>(
    rolloutChanged,
    useCallback((event) => add(event.rolloutChanged), [add]),
  );
  useOnLive(
    useCallback(() => {
      listRollouts().then(
        (read) => setRollouts(newestFirst(read)),
        (cause: unknown) => console.error('rollouts could not be read', cause),
      );
    }, []),
  );
  return { rollouts, add };
}

const newestFirst = (rollouts: readonly Rollout[]): readonly Rollout[] =>
  [...rollouts].sort((a, b) => b.createdAt.localeCompare(a.createdAt)).slice(0, kept);
