import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { loadTokenizer } from '@matfleet/inference';
import { InferenceServiceClient, Role, SwitchMode, type GenerateResponse, type GetStatusResponse } from '@matfleet/protocol';
import { tinyPackage, type TinyPackage } from '../../../../test/support/tiny-package.js';
import { createEngineHost } from '../engine/child-engine-host.js';
import type { EngineHost, EngineSpec } from '../engine/engine-host.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { createLatencyRecorder } from '../latency/latency-recorder.js';
import { createLocalServing, type LocalServing } from './local-serving.js';

const TEXT = 'lights off';
const onLinux = process.platform === 'linux' ? it : it.skip;

let tiny: TinyPackage;
let dir: string;
let host: EngineHost;
let supervisor: Supervisor;
let serving: LocalServing;
let client: InferenceServiceClient;
const latency = createLatencyRecorder();

const spec = (sliceId: string): EngineSpec => ({
  modelVersionId: 'v1',
  modelName: 'tiny',
  sliceId,
  manifestPath: tiny.manifestPath,
  storeDir: tiny.dir,
  contextTokens: 256,
});

beforeAll(async () => {
  tiny = await tinyPackage();
  dir = await mkdtemp(join(tmpdir(), 'matfleet-slices-'));
  const entry = new URL('../../dist/engine/engine-process.js', import.meta.url);
  host = createEngineHost({ modelMemoryBytes: 64 * 2 ** 20, availableMemoryBytes: () => 2 ** 32, entry });
  supervisor = createSupervisor({ host });
  await supervisor.promote(await host.start(spec('full')));
  const state = () => ({ deviceId: 'd-1', deviceName: 'kiosk', online: false, desiredGeneration: 1, observedGeneration: 1 });
  serving = createLocalServing({ supervisor, latency, state, socketPath: join(dir, 'agent.sock') });
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

interface Answer {
  readonly startedBy: string | undefined;
  readonly tokens: { readonly id: number; readonly sliceId: string }[];
  readonly error: ServiceError | undefined;
}

function ask(sliceId: string | undefined, maxTokens: number, onToken: (count: number) => void = () => {}): Promise<Answer> {
  return new Promise((resolve) => {
    const messages = [{ role: Role.ROLE_USER, parts: [{ content: { $case: 'text' as const, value: TEXT } }] }];
    const call = client.generate({ requestId: 'r-1', messages, sampling: undefined, maxTokens, task: '', sliceId }, new Metadata(), {
      deadline: Date.now() + 30_000,
    });
    let startedBy: string | undefined;
    let current = '';
    const tokens: Answer['tokens'] = [];
    call.on('data', ({ event }: GenerateResponse) => {
      if (event?.$case === 'started') current = startedBy = event.value.sliceId;
      if (event?.$case !== 'delta') return;
      current = event.value.sliceId ?? current;
      tokens.push(...event.value.tokenIds.map((id) => ({ id, sliceId: current })));
      onToken(tokens.length);
    });
    call.on('error', (error: ServiceError) => resolve({ startedBy, tokens, error }));
    call.on('end', () => resolve({ startedBy, tokens, error: undefined }));
  });
}

const changeSlice = (sliceId: string, mode: SwitchMode, requestId = 'r-1'): Promise<ServiceError | undefined> =>
  new Promise((resolve) => client.changeSlice({ requestId, sliceId, mode }, (error) => resolve(error ?? undefined)));
const getStatus = (): Promise<GetStatusResponse> =>
  new Promise((resolve, reject) => client.getStatus({}, (error, response) => (error ? reject(error) : resolve(response))));

async function promptIds(): Promise<number[]> {
  const { chunks } = JSON.parse(await readFile(tiny.manifestPath, 'utf8')) as { chunks: { id: string; part: { kind: string } }[] };
  const { id } = chunks.find(({ part }) => part.kind === 'tokenizer')!;
  return loadTokenizer(await readFile(join(tiny.dir, 'chunks', id))).encodeChat([{ role: 'user', text: TEXT }]);
}

/** What an engine of this slice alone says. */
async function alone(sliceId: string, ids: readonly number[], count: number): Promise<number[]> {
  const engine = await host.start(spec(sliceId));
  try {
    return (await engine.golden(ids, count)).tokenIds;
  } finally {
    await engine.stop();
  }
}

describe('slices from outside', () => {
  it('are told by the status: the active one and those within it', async () => {
    expect((await getStatus()).heldSliceIds).toEqual(['full', 'narrow']);
    const narrow = await host.start(spec('narrow'));
    expect(narrow.status().heldSlices).toEqual(['narrow']);
    await narrow.stop();
  });

  it('answer where a request names them, as an engine of that slice alone does, and are measured apart', async () => {
    latency.drain();
    const { startedBy, tokens, error } = await ask('narrow', 6);
    expect(error).toBeUndefined();
    expect(startedBy).toBe('narrow');
    expect(tokens.map(({ id }) => id)).toEqual(await alone('narrow', await promptIds(), 6));
    expect((await ask(undefined, 2)).startedBy).toBe('full');
    expect(latency.drain().map(({ sliceId }) => sliceId)).toEqual(['narrow', 'full']);
  });

  it('are refused with NOT_FOUND and the ones that are held', async () => {
    const { error, tokens } = await ask('wide', 6);
    expect(tokens).toEqual([]);
    expect(error).toMatchObject({ code: status.NOT_FOUND, details: 'slice wide is not held by this device; it holds full, narrow' });
  });

  it('change within a running answer that goes on with its context, exactly like a fresh run of the new slice when it prefills', async () => {
    const told: Promise<ServiceError | undefined>[] = [];
    const { startedBy, tokens, error } = await ask('full', 200, (count) => {
      if (count === 3) told.push(changeSlice('narrow', SwitchMode.SWITCH_MODE_PREFILL));
    });
    expect([error, await told[0], startedBy]).toEqual([undefined, undefined, 'full']);
    const at = tokens.findIndex(({ sliceId }) => sliceId === 'narrow');
    expect(at).toBeGreaterThanOrEqual(3);
    expect(new Set(tokens.slice(at).map(({ sliceId }) => sliceId))).toEqual(new Set(['narrow']));
    const ids = tokens.map(({ id }) => id);
    expect(ids.slice(at, at + 12)).toEqual(await alone('narrow', [...(await promptIds()), ...ids.slice(0, at)], 12));
  });

  it('go there and back while an answer runs, keeping keys and values; the answer is no measurement of either', async () => {
    latency.drain();
    const to = ['narrow', 'full', 'narrow'];
    const { tokens, error } = await ask('full', 200, (count) => {
      if (count % 30 === 0 && to.length > 0) void changeSlice(to.shift()!, SwitchMode.SWITCH_MODE_KEEP);
    });
    expect(error).toBeUndefined();
    const order = tokens.map(({ sliceId }) => sliceId).filter((id, i, all) => id !== all[i - 1]);
    expect(order).toEqual(['full', 'narrow', 'full', 'narrow']);
    expect(latency.drain()).toEqual([]);
  });

  it('do not change for an answer that is not running, nor to one that is not held', async () => {
    expect(await changeSlice('narrow', SwitchMode.SWITCH_MODE_KEEP)).toMatchObject({
      code: status.NOT_FOUND,
      details: 'no answer with the request id "r-1" is running',
    });
    const told: Promise<ServiceError | undefined>[] = [];
    const { error } = await ask('full', 40, (count) => {
      if (count === 1) told.push(changeSlice('wide', SwitchMode.SWITCH_MODE_KEEP));
    });
    expect(error).toBeUndefined();
    expect((await told[0])!.details).toBe('slice wide is not held by this device; it holds full, narrow');
  });

  onLinux('cost no processor time while they are open and idle', async () => {
    const ticks = async (): Promise<number> => {
      const text = await readFile(`/proc/${supervisor.current()!.pid}/stat`, 'utf8');
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
      return Number(fields[11]) + Number(fields[12]);
    };
    await ask('narrow', 2);
    const before = await ticks();
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    // Of 150 ticks of one core.
    expect((await ticks()) - before).toBeLessThan(8);
  });
});
