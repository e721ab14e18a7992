import { useCallback, useEffect, useState } from 'react';
import { useOnLive } from './live.js';

const readEveryMs = 5_000;

/** What `read` answers, read again from time to time while the page is seen, and after each `act`. `read` must be stable. */
export function useReading<T>(read: () => Promise<T>) {
  const [value, setValue] = useState<T>();
  const [error, setError] = useState<string | null>(null);
  const again = useCallback(
    () =>
      read().then(
        (found) => {
          setValue(found);
          setError(null);
        },
        (cause: Error) => setError(cause.message),
      ),
    [read],
  );
  useOnLive(useCallback(() => void again(), [again]));
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === 'visible' && void again(), readEveryMs);
    return () => clearInterval(timer);
  }, [again]);
  /** Does something, tells when it fails, and reads what came of it. */
  const act = useCallback(
    (work: () => Promise<unknown>) =>
      work().then(again, (cause: Error) => {
        setError(cause.message);
      }),
    [again],
  );
  return { value, error, act };
}
