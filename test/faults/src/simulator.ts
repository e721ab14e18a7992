import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bin, ManagedProcess, removeFile, seededRandom, type Fleet } from '@matfleet/harness';

export interface SimulatorRun {
  readonly devices: number;
  readonly seed: number;
  /** How long faults happen, seconds. */
  readonly seconds: number;
}

/** Virtual devices on broken networks, all of them started. Their history goes to `history`. */
export async function startSimulator(fleet: Fleet, { devices, seed, seconds }: SimulatorRun, history: string): Promise<ManagedProcess> {
  const { token } = await fleet.api.createJoinToken(devices);
  const at = (name: string): string => join(fleet.dir, `${name}-${seed}`);
  await writeFile(at('token'), token, { mode: 0o600 });
  await writeFile(at('script.json'), JSON.stringify(faultScript(seed, seconds)));
  await removeFile(at('ready.json'));
  const process = ManagedProcess.start(
    'simulator',
    bin.simulator,
    [
      ...['--server', fleet.deviceUrl, '--join-token-file', at('token'), '--devices', String(devices), '--seed', String(seed)],
      // The grants of nano's boxes, so that different devices get different slices.
      ...['--model-memory', '1594000,1678000,4194304', '--script', at('script.json'), '--history', history, '--ready-file', at('ready.json')],
    ],
    { logFile: at('simulator.log') },
  );
  await process.ready(at('ready.json'), 60_000 + devices * 100);
  return process;
}

/** A tenth of the devices on each broken network, every fault once or more within `seconds`, at moments that the seed decides. */
export function faultScript(seed: number, seconds: number): unknown {
  const random = seededRandom(seed + 7);
  const when = (lasts: number): { at: number; for: number } => ({
    at: Number((random() * Math.max(0, seconds - lasts)).toFixed(2)),
    for: lasts,
  });
  return {
    groups: { cut: 0.15, stuck: 0.15, nat: 0.15, far: 0.15, noisy: 0.2 },
    faults: [
      { kind: 'drop', group: 'cut', ...when(2) },
      { kind: 'drop', group: 'cut', ...when(1) },
      { kind: 'freeze', group: 'stuck', ...when(4) },
      { kind: 'half-open', group: 'nat', ...when(0) },
      { kind: 'delay', group: 'far', at: 0, for: seconds, ms: 150, jitterMs: 150 },
      { kind: 'duplicate', group: 'noisy', at: 0, for: seconds, chance: 0.3 },
      { kind: 'reorder', group: 'noisy', at: 0, for: seconds, chance: 0.2 },
      { kind: 'skew', at: 0, for: seconds / 2, ms: random() < 0.5 ? -600_000 : 600_000 },
      { kind: 'restart', group: 'cut', ...when(0) },
    ],
  };
}
