import { useCallback, useEffect, useState } from 'react';
import { readTimeline } from './api.js';
import type { TimelineEntry } from './api-types.js';
import { timelineGrew } from './documents.js';
import { useLive, useOnLive } from './live.js';
import { merged } from './timeline.js';

/** What happened to a device, newest first, as far back as was asked for; grows while it is open. */
export function useTimeline(deviceId: string) {
  const { connection } = useLive();
  const [entries, setEntries] = useState<readonly TimelineEntry[]>();
  const [next, setNext] = useState<number | null>(null);
  const [error, setError] = useState<string | null>(null);
  const add = useCallback((more: readonly TimelineEntry[]) => setEntries((known = []) => merged(known, more)), []);
  const read = useCallback(
    (before: number | null, isFirst: boolean) =>
      readTimeline(deviceId, before).then(
        (page) => {
          add(page.entries);
          setNext((known) => (isFirst && known !== null ? known : page.next));
          setError(null);
        },
        (cause: Error) => setError(`The timeline could not be read: ${cause.message}`),
      ),
    [deviceId, add],
  );
  useEffect(
    () => connection?.subscribe<{ deviceTimelineGrew: TimelineEntry }>(timelineGrew, (event) => add([event.deviceTimelineGrew]), { id: deviceId }),
    [connection, deviceId, add],
  );
  // Also after a reconnect: what happened meanwhile was missed.
  useOnLive(useCallback(() => void read(null, true), [read]));
  const older = next === null ? undefined : () => void read(next, false);
  return { entries, error, older };
}
