import { sleep, waitFor, type Fleet } from '@matfleet/harness';

export interface Standstill {
  /** How long every replica was gone. */
  readonly stoppedSeconds: number;
  /** Devices that were alive all the time and shown as offline once a replica answered again. */
  readonly falseOffline: number;
  /** From the restart until every device was online. */
  readonly allOnlineSeconds: number;
}

const RETURN_MS = 120_000;

/** Kills every replica, starts them again later, and looks whether a device that lived all the time is called gone. */
export async function standStill(fleet: Fleet, stoppedSeconds: number): Promise<Standstill> {
  await Promise.all(fleet.replicas.map((replica) => replica.process.kill()));
  await sleep(1_000 * stoppedSeconds);
  await Promise.all(fleet.replicas.map((replica) => replica.restart()));
  const startedAtMs = performance.now();
  const offline = new Set<string>();
  await waitFor(
    'every device to be online again',
    async () => {
      let online = true;
      for (const { api } of fleet.replicas)
        for (const { id, presence } of await api.devices()) {
          if (presence === 'offline') offline.add(id);
          online &&= presence === 'online';
        }
      return online;
    },
    { timeoutMs: RETURN_MS, everyMs: 250 },
  );
  return {
    stoppedSeconds,
    falseOffline: offline.size,
    allOnlineSeconds: Number(((performance.now() - startedAtMs) / 1_000).toFixed(1)),
  };
}
