import { afterEach, describe, expect, it } from '@jest/globals';
import type { FakeControlPlaneOptions } from '@matfleet/protocol/testing';
import { channelOptions, deviceCredentials, targetOf } from './channel.js';
import { DeviceServiceClient } from '@matfleet/protocol';
import type { Refusal } from './session.js';
import { SessionRig } from './testing/session-rig.js';

const rig = new SessionRig();
afterEach(() => rig.end());
const rest = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a session that the control plane refuses', () => {
  it('is told why, and does not dial again before the long wait', async () => {
    await rig.start({ standing: 'revoked' });
    const device = rig.device({ refusedRetryMs: 60_000 });
    await rig.plane.until('the refusal', () => device.refusals.length > 0);
    await rest(2_500);
    expect(device.refusals).toEqual([{ standing: 'revoked', message: 'the device is revoked' }] satisfies Refusal[]);
    expect(rig.plane.turnedAway).toBe(1);
    expect(device.lastWhy).toBe('the device is revoked');
  });

  it('opens after the wait once it is refused no longer', async () => {
    const options: { standing?: string } & FakeControlPlaneOptions = { standing: 'quarantined' };
    await rig.start(options);
    const device = rig.device({ refusedRetryMs: 400 });
    await rig.plane.until('two refusals', () => device.refusals.length >= 2);
    delete (options as { standing?: string }).standing;
    await rig.plane.until('the session', () => device.session.online);
  });

  it('ends for good where the device says so', async () => {
    await rig.start({ standing: 'wipe' });
    const device = rig.device({ refusedRetryMs: 100 }, 'never');
    await device.ended;
    await rest(300);
    expect(rig.plane.turnedAway).toBe(1);
  });

  it('takes a new channel for the next session once the device has another certificate, and leaves the present one alone', async () => {
    await rig.start();
    let dialled = 0;
    const dial = () => {
      dialled += 1;
      return new DeviceServiceClient(targetOf(rig.wire.url), deviceCredentials(rig.identity), channelOptions);
    };
    const device = rig.device({ dial });
    await rig.plane.until('the session', () => device.session.online);
    device.session.redialNext();
    await rest(300);
    expect([dialled, device.session.online]).toEqual([1, true]);
    rig.plane.disconnect(rig.id);
    await rig.hellos(2);
    expect(dialled).toBe(2);
  });
});
