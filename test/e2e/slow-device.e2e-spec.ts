import { spawn, type ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Fleet, sleep, waitFor, type Device } from '@matfleet/harness';

const TARGET_INTER_TOKEN_MS = 12;

/**
 * A neighbour that takes most of the engine's CPU: it stops and continues the engine in a steady rhythm, as a CPU quota does. Works without
 * any privilege, and on every kernel.
 */
function throttle(pid: number, share: number): { stop(): void } {
  const periodMs = 40;
  const child: ChildProcess = spawn(
    process.execPath,
    [
      '-e',
      `const pid=${pid};const signal=(s)=>{try{process.kill(pid,s)}catch{process.exit(0)}};
       process.on('exit',()=>{try{process.kill(pid,'SIGCONT')}catch{}});process.on('SIGTERM',()=>process.exit(0));process.on('disconnect',()=>process.exit(0));
       (function beat(){signal('SIGCONT');setTimeout(()=>{signal('SIGSTOP');setTimeout(beat,${periodMs * (1 - share)})},${periodMs * share})})()`,
    ],
    { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] },
  );
  return { stop: () => void child.kill('SIGTERM') };
}

describe('a device that turns slow', () => {
  let fleet: Fleet;

  beforeAll(async () => {
    fleet = await Fleet.start({
      env: {
        MATFLEET_TARGET_INTER_TOKEN_MS: String(TARGET_INTER_TOKEN_MS),
        MATFLEET_HEARTBEAT_MS: '500',
        MATFLEET_LEASE_MS: '5000',
        MATFLEET_UPGRADE_DWELL_MS: '4000',
      },
    });
    await fleet.converged(fleet.model.versionId);
  }, 120_000);

  afterAll(async () => {
    await fleet.stop();
  }, 60_000);

  it('moves to a smaller slice with the measured numbers in its reason, and comes back when it is fast again', async () => {
    const agent = fleet.agent('server');
    const before = await fleet.api.device('server');
    const slow = throttle((await agent.app.status()).enginePid, 0.12);
    const traffic = keepAsking(fleet);
    let smaller: Device;
    try {
      smaller = await waitFor(
        'the slow device to get a smaller slice',
        async () => {
          const device = await fleet.api.device('server');
          return device.desired!.sliceId !== before.desired!.sliceId ? device : undefined;
        },
        { timeoutMs: 60_000 },
      );
    } finally {
      slow.stop();
    }
    expect(smaller.desired!.reason).toMatch(/\d+(\.\d+)? ms/);
    const [assignment] = await fleet.api.assignments(smaller.id);
    const bytes = (id: string): number => assignment!.explanation.candidates.find(({ sliceId }) => sliceId === id)!.totalBytes;
    expect(bytes(smaller.desired!.sliceId)).toBeLessThan(bytes(before.desired!.sliceId));

    const back = await waitFor(
      'the fast device to get its slice back',
      async () => {
        const device = await fleet.api.device('server');
        return device.desired!.sliceId === before.desired!.sliceId && device.observed?.sliceId === before.desired!.sliceId ? device : undefined;
      },
      { timeoutMs: 90_000 },
    );
    traffic.stop();
    expect(back.phase).toBe('active');
  }, 180_000);
});

/** A local application that never rests, so that there is something to measure. */
function keepAsking(fleet: Fleet): { stop(): void } {
  let running = true;
  void (async () => {
    while (running) {
      await fleet
        .agent('server')
        .app.ask({ prompt: 'turn the lights off in the office', timeoutMs: 20_000 })
        .catch(() => sleep(100));
      await sleep(20);
    }
  })();
  return { stop: () => (running = false) };
}
