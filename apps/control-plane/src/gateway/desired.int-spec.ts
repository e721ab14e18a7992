import 'reflect-metadata';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { histogramOf } from '@matfleet/model';
import { ActivationStep, Phase } from '@matfleet/protocol';
import { first, GatewayRig, HEARTBEAT_MS, packageOf, until } from '../../../../test/support/gateway-rig.js';

describe('a desired document', () => {
  let rig: GatewayRig;

  beforeAll(async () => {
    rig = await GatewayRig.start();
  });
  afterEach(() => rig.tidy());
  afterAll(() => rig?.stop());

  it('gives a device that turned slow a smaller slice, with the numbers, and the larger one back when it is fast again', async () => {
    const { device, beat } = await rig.running('kiosk', 'large');
    clearInterval(beat);
    const wire = (values: number[]) => {
      const histogram = histogramOf(values);
      return { ...histogram, counts: histogram.counts.map(BigInt), zeroCount: BigInt(histogram.zeroCount), count: BigInt(histogram.count) };
    };
    /** Beats with 40 tokens of this latency until another document comes. */
    const beatUntilMoved = async (sliceId: string, interTokenMs: number) => {
      const latency = {
        modelVersionId: first.id,
        sliceId,
        ttftMs: wire([50]),
        interTokenMs: wire(Array<number>(40).fill(interTokenMs)),
        queueMs: wire([0]),
        promptTokens: 10n,
        outputTokens: 41n,
        failed: 0n,
      };
      const beats = setInterval(() => device.heartbeat({ latency: [latency] }), HEARTBEAT_MS / 2);
      return device.next('desired', 15_000).finally(() => clearInterval(beats));
    };
    const lowered = await beatUntilMoved('large', 400);
    expect(lowered).toMatchObject({ generation: 2n, sliceId: 'small' });
    expect(lowered.reason).toMatch(/large took 400 ms per token in [34] windows in a row, target 100 ms/);
    rig.report(device, 2n, Phase.PHASE_ACTIVE, 'small');
    const raised = await beatUntilMoved('small', 2);
    expect(raised).toMatchObject({ generation: 3n, sliceId: 'large' });
    expect(raised.reason).toContain('96.0 % instead of 60.0 %');
  });

  it('brings the fleet to another model version by a rollout, and ends it by what the device reports', async () => {
    const { device, identity } = await rig.running('kiosk', 'middle');
    const second = packageOf('second');
    await rig.publish(second);
    const { id } = await rig.call<{ id: string }>('POST', '/api/v1/rollouts', { modelVersionId: second.id });
    const desired = await device.next('desired', 10_000);
    expect(desired).toMatchObject({ generation: 2n, modelVersionId: second.id, sliceId: 'middle', updateId: id });
    rig.report(device, 2n, Phase.PHASE_ACTIVE, 'middle', second.id, {
      step: ActivationStep.ACTIVATION_STEP_COMMITTED,
      ...{ goldenPromptsTotal: 3, goldenPromptsMatched: 3, goldenTokensTotal: 24, goldenTokensMatched: 24 },
      ...{ previousTokensTotal: 24, previousTokensMatched: 19, interTokenMs: 41.5 },
    });
    await until(
      () => rig.call<{ state: string }>('GET', `/api/v1/rollouts/${id}`),
      (rollout) => rollout.state === 'succeeded',
    );
    expect(await rig.deviceOf(identity.deviceId)).toMatchObject({
      observed: { generation: 2 },
      activation: {
        ...{ step: 'committed', failure: null, reason: null, goldenPromptsMatched: 3, goldenTokensTotal: 24 },
        ...{ previousTokensTotal: 24, previousTokensMatched: 19, interTokenMs: 41.5, ttftMs: null },
      },
    });
  });
});
