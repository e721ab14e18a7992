import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from '@jest/globals';
import { repositoryRoot } from '@matfleet/harness';

it('a device killed in its activations, or cut from power after any operation on its disk, serves the right answers of a whole slice afterwards', async () => {
  const command = [join(repositoryRoot, 'test/faults/dist/main.js'), 'activation', '--sample', '4'];
  const { stdout } = await promisify(execFile)(process.execPath, command, { timeout: 170_000 });
  const { ok, kills, powerLoss } = JSON.parse(stdout) as {
    ok: boolean;
    kills: { activations: number; killedAt: Record<string, number>; withoutRunnableSlice: number };
    powerLoss: { flushes: number; states: number; booted: number; wrongBytes: number };
  };
  expect(ok).toBe(true);
  expect(kills).toMatchObject({ activations: 4, withoutRunnableSlice: 0 });
  expect(Object.keys(kills.killedAt).length).toBeGreaterThan(0);
  expect(powerLoss).toMatchObject({ booted: 4, wrongBytes: 0 });
  // A record without flushes or with hardly any states would prove nothing.
  expect(powerLoss.flushes).toBeGreaterThan(20);
  expect(powerLoss.states).toBeGreaterThan(50);
}, 180_000);
