import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Fleet, sleep, waitFor, type AgentProcess } from '@matfleet/harness';

const TARGET_INTER_TOKEN_MS = 12;
const UPGRADE_DWELL_MS = 4_000;

/**
 * Takes most of the CPU from a device's engine, as a quota does: stops and continues it in a steady rhythm, and follows the device from one
 * engine process to the next. Works without any privilege, and on every kernel.
 */
function throttle(agent: AgentProcess, share: number): { stop(): void } {
  const periodMs = 40;
  const child = spawn(
    process.execPath,
    [
      '-e',
      `let pid=0;const signal=(s)=>{try{if(pid)process.kill(pid,s)}catch{pid=0}};
       process.on('message',(next)=>{if(next!==pid){signal('SIGCONT');pid=next}});
       process.on('exit',()=>signal('SIGCONT'));process.on('SIGTERM',()=>process.exit(0));process.on('disconnect',()=>process.exit(0));
       (function beat(){signal('SIGCONT');setTimeout(()=>{signal('SIGSTOP');setTimeout(beat,${periodMs * (1 - share)})},${periodMs * share})})()`,
    ],
    { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] },
  );
  let running = true;
  void (async () => {
    while (running) {
      const enginePid = await agent.app.status().then(
        (status) => status.enginePid,
        () => 0,
      );
      if (running && enginePid > 0) child.send(enginePid);
      await sleep(100);
    }
  })();
  return {
    stop: () => {
      running = false;
      child.kill('SIGTERM');
    },
  };
}

describe('a device that turns slow', () => {
  let fleet: Fleet;

  beforeAll(async () => {
    fleet = await Fleet.start({
      env: {
        MATFLEET_TARGET_INTER_TOKEN_MS: String(TARGET_INTER_TOKEN_MS),
        MATFLEET_HEARTBEAT_MS: '500',
        MATFLEET_LEASE_MS: '5000',
        MATFLEET_UPGRADE_DWELL_MS: String(UPGRADE_DWELL_MS),
      },
    });
    await fleet.converged(fleet.model.versionId);
  }, 120_000);

  afterAll(async () => {
    await fleet.stop();
  }, 60_000);

  it('moves to a smaller slice with the measured numbers in its reason, and comes back when it is fast again', async () => {
    const before = await fleet.api.device('server');
    const [first] = await fleet.api.assignments(before.id);
    const bytes = (id: string): number => first!.explanation.candidates.find(({ sliceId }) => sliceId === id)!.totalBytes;
    const slow = throttle(fleet.agent('server'), 0.12);
    const traffic = keepAsking(fleet);
    try {
      const smaller = await waitFor(
        'the slow device to run a smaller slice',
        async () => {
          const device = await fleet.api.device('server');
          return device.desired!.sliceId !== before.desired!.sliceId && device.observed?.sliceId === device.desired!.sliceId ? device : undefined;
        },
        { timeoutMs: 60_000 },
      );
      expect(smaller.desired!.reason).toMatch(/\d+(\.\d+)? ms/);
      expect(bytes(smaller.desired!.sliceId)).toBeLessThan(bytes(before.desired!.sliceId));

      // Still slow, past the hold-off: it must not come back yet.
      const until = Date.now() + 2 * UPGRADE_DWELL_MS;
      while (Date.now() < until) {
        expect(bytes((await fleet.api.device('server')).desired!.sliceId)).toBeLessThan(bytes(before.desired!.sliceId));
        await sleep(500);
      }
    } finally {
      slow.stop();
    }

    let reason = '';
    const back = await waitFor(
      'the fast device to get its slice back',
      async () => {
        const device = await fleet.api.device('server');
        const { sliceId, reason: why } = device.desired!;
        reason = why;
        // A box that was busy while it joined may have begun below what it can do, and end above it.
        return bytes(sliceId) >= bytes(before.desired!.sliceId) && device.observed?.sliceId === sliceId ? device : undefined;
      },
      { timeoutMs: 90_000, lastSeen: () => reason },
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
