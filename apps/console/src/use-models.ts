import { useCallback, useEffect, useState } from 'react';
import { listModels } from './api.js';
import type { ModelVersion } from './api-types.js';
import { useOnLive } from './live.js';

const readEveryMs = 30_000;

/** The catalog. Publishing is rare and has no event, so it is read again from time to time while the page is seen. */
export function useModels(): readonly ModelVersion[] | undefined {
  const [models, setModels] = useState<readonly ModelVersion[]>();
  const read = useCallback(() => {
    listModels().then(setModels, (cause: unknown) => console.error('models could not be read', cause));
  }, []);
  useOnLive(read);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === 'visible' && read(), readEveryMs);
    return () => clearInterval(timer);
  }, [read]);
  return models;
}
