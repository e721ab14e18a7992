import 'reflect-metadata';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { answer, delta, finished, GatewayRig, HEARTBEAT_MS, type Seen, started } from '../../../../test/support/gateway-rig.js';

describe('an inference', () => {
  let rig: GatewayRig;

  beforeAll(async () => {
    rig = await GatewayRig.start();
  });
  afterEach(() => rig.tidy());
  afterAll(() => rig?.stop());

  it('goes to the only device that meets its quality floor, and streams its answer', async () => {
    await rig.running('kiosk', 'small');
    const { device: server } = await rig.running('server', 'large');
    const { id } = await rig.call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9 });
    const start = await server.next('startInference');
    expect(start.request!.messages).toEqual([{ role: 2, parts: [{ content: { $case: 'text', value: 'hello' } }] }]);
    answer(server, start, 1, started(start));
    answer(server, start, 2, delta('the an'));
    await rig.inferenceUntil(id, (inference) => inference.answer === 'the an');
    answer(server, start, 3, delta('swer'));
    answer(server, start, 4, finished);
    const done = await rig.inferenceUntil(id, (inference) => inference.state === 'succeeded');
    expect(done).toMatchObject({ answer: 'the answer', sliceId: 'large', attempts: [{ deviceName: 'server', state: 'succeeded' }] });
    expect(done.attempts[0]!.reason).toContain('kiosk 60.0 % with small is below the floor of 90.0 %');
  });

  it('falls back to a larger device when the first dies in the middle, and is answered by that one alone', async () => {
    const kiosk = await rig.running('kiosk', 'small');
    const { device: server } = await rig.running('server', 'large');
    // A queue at the larger device makes the smaller the first choice.
    server.heartbeat({ queueLength: 50 });
    await sleep(HEARTBEAT_MS / 10);
    const { id } = await rig.call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello' });
    const lost = await kiosk.device.next('startInference');
    answer(kiosk.device, lost, 1, started(lost));
    answer(kiosk.device, lost, 2, delta('half an ans'));
    await rig.inferenceUntil(id, (inference) => inference.answer === 'half an ans');
    clearInterval(kiosk.beat);
    kiosk.device.vanish();
    const start = await server.next('startInference');
    answer(server, start, 1, started(start));
    answer(server, start, 2, delta('whole'));
    answer(server, start, 3, finished);
    const done = await rig.inferenceUntil(id, (inference) => inference.state === 'succeeded');
    expect(done.answer).toBe('whole');
    expect(done.attempts).toMatchObject([
      { deviceName: 'kiosk', state: 'failed' },
      { deviceName: 'server', state: 'succeeded' },
    ]);
    expect(done.attempts[1]!.reason).toContain('larger than the device that failed');
    // The lost device comes back and answers after all: stored as ignored, and the answer stays.
    const back = rig.connect(kiosk.identity);
    back.open(rig.hello('small', 1n));
    await back.next('welcome');
    answer(back, lost, 3, finished);
    const after = await rig.inferenceUntil(id, (inference) => inference.attempts[0]!.state === 'ignored');
    expect(after).toMatchObject({ state: 'succeeded', answer: 'whole' });
  });

  it('waits for a device that meets the floor, and fails at its deadline with the floor and the best there was', async () => {
    await rig.running('kiosk', 'small');
    const { id } = await rig.call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9, deadlineMs: 700 });
    const done = await rig.inferenceUntil(id, (inference) => inference.state === 'failed');
    expect(done.error).toMatch(/deadline-exceeded.*floor of 90.0 % now; best available: kiosk with small at 60.0 %/);
    const later = await rig.call<Seen>('POST', '/api/v1/inferences', { prompt: 'hello', qualityFloor: 0.9 });
    const { device: server } = await rig.running('server', 'large');
    expect((await server.next('startInference')).inferenceId).toBe(later.id);
  });
});
