import { sleep } from '@matfleet/harness';
import type { InferenceRig } from './inference.js';

const REQUESTS = 24;

/** 24 requests at once with one of two devices frozen, beside the same with one device alone. */
export interface FrozenPeer {
  readonly requests: number;
  readonly aloneMs: number;
  readonly frozenMs: number;
  readonly ratio: number;
  readonly falseFailures: number;
  /** Attempts that the frozen device was given. */
  readonly wasted: number;
}

/** The rig has two devices. The first one is frozen, then gone. */
export async function runFrozenPeer(rig: InferenceRig): Promise<FrozenPeer> {
  const [frozen] = rig.agents;
  await all(rig); // Both have measured themselves.
  const { enginePid } = await frozen!.app.status();
  const pids = [frozen!.process.pid, enginePid];
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  const withFrozen = await all(rig);
  for (const pid of pids) process.kill(pid, 'SIGCONT');
  const { id } = (await rig.controlPlane.api.devices()).find(({ name }) => name === frozen!.name)!;
  await frozen!.process.stop();
  await sleep(5_000); // Its lease is over.
  const alone = await all(rig);
  return {
    requests: REQUESTS,
    aloneMs: Math.round(alone.ms),
    frozenMs: Math.round(withFrozen.ms),
    ratio: Number((withFrozen.ms / alone.ms).toFixed(2)),
    falseFailures: withFrozen.failed,
    wasted: withFrozen.devices.filter((deviceId) => deviceId === id).length,
  };
}

async function all(rig: InferenceRig): Promise<{ ms: number; failed: number; devices: string[] }> {
  const began = performance.now();
  const ended = await Promise.all(Array.from({ length: REQUESTS }, (_, at) => rig.ask(rig.prompt(at), 60_000)));
  return {
    ms: performance.now() - began,
    failed: ended.filter(({ state }) => state !== 'succeeded').length,
    devices: ended.flatMap(({ attempts }) => attempts.filter(({ state }) => state !== 'succeeded').map(({ deviceId }) => deviceId)),
  };
}
