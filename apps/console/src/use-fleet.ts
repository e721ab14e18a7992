import { useCallback, useState } from 'react';
import { listDevices } from './api.js';
import type { Device } from './api-types.js';
import { deviceChanged } from './documents.js';
import { applyDevice, replaceDevices, type Fleet } from './fleet.js';
import { useOnLive, useSubscription } from './live.js';

/** The devices, live. `undefined` until they were read once. */
export function useFleet(): { readonly fleet: Fleet | undefined; readonly error: string | null } {
  const [fleet, setFleet] = useState<Fleet>();
  const [error, setError] = useState<string | null>(null);
  useSubscription<{ deviceChanged: Device }>(
    deviceChanged,
    useCallback(({ deviceChanged: device }) => setFleet((known) => applyDevice(known ?? new Map(), device, Date.now())), []),
  );
  useOnLive(
    useCallback(() => {
      listDevices().then(
        (devices) => {
          setFleet((known) => replaceDevices(known ?? new Map(), devices, Date.now()));
          setError(null);
        },
        (cause: Error) => setError(cause.message),
      );
    }, []),
  );
  return { fleet, error };
}
