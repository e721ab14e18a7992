import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { GenerateRequest, InferenceServiceClient, Role, type GenerateResponse, type GetStatusResponse } from '@matfleet/protocol';
import { Manifest } from '@matfleet/model';
import { tinyPackage, type TinyPackage } from '../../../../test/support/tiny-package.js';
import { createEngineHost } from '../engine/child-engine-host.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { createLatencyRecorder } from '../latency/latency-recorder.js';
import { createLocalServing, type LocalServing } from '../serving/local-serving.js';
import type { Signals } from './pressure.js';
import { PressureLoop } from './pressure-loop.js';

const calm: Signals = { availableShare: 0.5, onBattery: false };
const squeezed: Signals = { availableShare: 0.02, onBattery: false };

describe('a device whose memory is squeezed', () => {
  let tiny: TinyPackage;
  let dir: string;
  let supervisor: Supervisor;
  let serving: LocalServing;
  let client: InferenceServiceClient;
  let loop: PressureLoop;
  let [signals, nowMs] = [calm, 0];
  const changes: { sliceId: string; reason: string }[] = [];

  beforeAll(async () => {
    tiny = await tinyPackage();
    dir = await mkdtemp(join(tmpdir(), 'matfleet-pressure-'));
    const entry = new URL('../../dist/engine/engine-process.js', import.meta.url);
    const host = createEngineHost({ modelMemoryBytes: 64 * 2 ** 20, availableMemoryBytes: () => 2 ** 32, entry });
    const manifest = Manifest.parse(JSON.parse(await readFile(tiny.manifestPath, 'utf8')));
    supervisor = createSupervisor({ host });
    const spec = {
      modelVersionId: 'v1',
      modelName: 'tiny',
      sliceId: 'full',
      manifestPath: tiny.manifestPath,
      storeDir: tiny.dir,
      contextTokens: 256,
    };
    await supervisor.promote(await host.start(spec));
    loop = new PressureLoop({
      supervisor,
      manifest: () => manifest,
      onChange: (sliceId, reason) => {
        changes.push({ sliceId, reason });
        serving.changeSlice(sliceId);
      },
      signals: () => signals,
      nowMs: () => nowMs,
    });
    loop.stop(); // The test looks when it wants to.
    serving = createLocalServing({
      supervisor,
      latency: createLatencyRecorder(),
      state: () => ({ deviceId: 'd-1', deviceName: 'kiosk', online: false, desiredGeneration: 1, observedGeneration: 1 }),
      effective: () => loop.effective,
      socketPath: join(dir, 'agent.sock'),
    });
    const { socket } = await serving.start();
    client = new InferenceServiceClient(`unix:${socket}`, credentials.createInsecure());
  }, 60_000);

  afterAll(async () => {
    client.close();
    await serving.stop();
    await supervisor.stop();
    await rm(dir, { recursive: true, force: true });
    await tiny.remove();
  });

  const getStatus = (): Promise<GetStatusResponse> =>
    new Promise((resolve, reject) => client.getStatus({}, (error, response) => (error ? reject(error) : resolve(response))));

  /** The slice of each token. */
  function ask(request: Partial<GenerateRequest> = {}, onToken: (count: number) => void = () => {}): Promise<string[]> {
    const messages = [{ role: Role.ROLE_USER, parts: [{ content: { $case: 'text' as const, value: 'lights off' } }] }];
    const call = client.generate(GenerateRequest.fromPartial({ messages, maxTokens: 60, ...request }), { deadline: Date.now() + 30_000 });
    return new Promise((resolve, reject) => {
      const by: string[] = [];
      let current = '';
      call.on('data', ({ event }: GenerateResponse) => {
        if (event?.$case === 'started') current = event.value.sliceId;
        if (event?.$case !== 'delta') return;
        current = event.value.sliceId ?? current;
        by.push(...event.value.tokenIds.map(() => current));
        onToken(by.length);
      });
      call.on('error', reject);
      call.on('end', () => resolve(by));
    });
  }

  const look = (ms: number, reading: Signals): void => {
    nowMs += ms;
    signals = reading;
    loop.look();
  };

  it('ends a running answer with a smaller slice, begins the next ones with it, and says why', async () => {
    const by = await ask({}, (count) => count === 5 && look(1_000, squeezed));
    expect(by[0]).toBe('full');
    const smaller = by.at(-1)!;
    expect(smaller).not.toBe('full');
    expect(by).toHaveLength(60);
    expect(changes).toEqual([{ sliceId: smaller, reason: 'memory: 2.0 % is available' }]);
    expect(await getStatus()).toMatchObject({ sliceId: 'full', effectiveSliceId: smaller, effectiveReason: 'memory: 2.0 % is available' });
    expect(new Set(await ask())).toEqual(new Set([smaller]));
  });

  it('leaves the slice that a caller named', async () => {
    expect(new Set(await ask({ sliceId: 'full' }))).toEqual(new Set(['full']));
  });

  it('climbs back to its assigned slice in calm', async () => {
    for (let second = 0; second < 31; second++) look(1_000, calm);
    expect(changes.at(-1)).toEqual({ sliceId: 'full', reason: '' });
    expect(await getStatus()).toMatchObject({ effectiveSliceId: 'full', effectiveReason: '' });
    expect(new Set(await ask())).toEqual(new Set(['full']));
  });
});
