import 'reflect-metadata';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Phase, PowerSource, SyncRequest, type SyncResponse } from '@matfleet/protocol';
import { GatewayRig, until } from '../../../../test/support/gateway-rig.js';

describe('a session', () => {
  let rig: GatewayRig;

  beforeAll(async () => {
    rig = await GatewayRig.start();
  });
  afterEach(() => rig.tidy());
  afterAll(() => rig?.stop());

  it('tells how the box is doing, until it tells otherwise', async () => {
    const { device, identity, beat } = await rig.running('kiosk', 'small');
    const told = async () => (await rig.call<{ condition: unknown }>('GET', `/api/v1/devices/${identity.deviceId}`)).condition;
    expect(await told()).toBeNull();
    device.heartbeat({ condition: { power: PowerSource.POWER_SOURCE_BATTERY, batteryPercent: 43, temperatureCelsius: Number.NaN } });
    const expected = {
      memorySomePercent: null,
      memoryFullPercent: null,
      power: 'battery',
      batteryPercent: 43,
      temperatureCelsius: null,
      throttlesAtCelsius: null,
      roundTripMs: null,
    };
    await until(told, (condition) => condition !== null);
    device.heartbeat();
    await device.next('heartbeatAck');
    expect(await told()).toEqual(expected);
    clearInterval(beat);
  });

  it('is ended by a newer one of the same device, after which nothing of the old one has an effect', async () => {
    const { device: old, identity, beat } = await rig.running('kiosk', 'small');
    clearInterval(beat);
    const next = rig.connect(identity);
    next.open(rig.hello('small', 1n));
    expect((await next.next('welcome')).epoch).toBe(2n);
    rig.report(old, 9n, Phase.PHASE_FAILED, 'large');
    await until(
      async () => old.ended,
      (ended) => ended !== undefined,
    );
    next.heartbeat();
    await next.next('heartbeatAck');
    expect(await rig.deviceOf(identity.deviceId)).toMatchObject({ phase: 'active', presence: 'online' });
    // The device holds generation 1 already, so that nothing is sent again.
    expect(next.received.some(({ message }) => message?.$case === 'desired')).toBe(false);
  });

  it('turns suspect, then offline, when its device falls silent without a word', async () => {
    const { identity, beat } = await rig.running('kiosk', 'small');
    clearInterval(beat);
    await until(
      () => rig.deviceOf(identity.deviceId),
      (device) => device.presence === 'suspect',
    );
    await until(
      () => rig.deviceOf(identity.deviceId),
      (device) => device.presence === 'offline',
    );
  });

  it('gets a larger slice when it comes back with a larger grant', async () => {
    const { device, identity } = await rig.running('kiosk', 'small');
    device.vanish();
    const back = rig.connect(identity);
    back.open(rig.hello('large', 1n));
    expect(await back.next('desired')).toMatchObject({ generation: 2n, sliceId: 'large' });
  });

  it('works by Sync where streams do not get through, and fences an old epoch', async () => {
    const identity = await rig.enrol('kiosk');
    const client = rig.connect(identity).client;
    const sync = (request: Parameters<typeof SyncRequest.fromPartial>[0]): Promise<SyncResponse> =>
      new Promise((resolve, reject) =>
        client.sync(SyncRequest.fromPartial(request), (error, answered) => (error ? reject(error) : resolve(answered))),
      );
    await expect(sync({ epoch: 0n, messages: [] })).rejects.toThrow('the first Sync carries Hello');
    const greeted = await sync({ epoch: 0n, messages: [{ message: { $case: 'hello', value: rig.hello('middle') } }] });
    expect(greeted.messages.map(({ message }) => message?.$case)).toEqual(expect.arrayContaining(['welcome', 'desired']));
    const beaten = await sync({ epoch: 1n, messages: [{ message: { $case: 'heartbeat', value: { sequence: 5n, engineReady: true } } }] });
    expect(beaten.messages).toContainEqual({ message: { $case: 'heartbeatAck', value: expect.objectContaining({ sequence: 5n }) } });
    await expect(sync({ epoch: 0n, messages: [] })).rejects.toThrow('epoch 0 was replaced by epoch 1');
  });
});
