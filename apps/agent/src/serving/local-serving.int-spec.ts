import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  FinishReason,
  InferenceServiceClient,
  Refusal,
  Refusal_Code,
  Role,
  type GenerateResponse,
  type Output,
  type GetStatusResponse,
} from '@matfleet/protocol';
import { service as healthService } from 'grpc-health-check';
import { tinyPackage, type TinyPackage } from '../../../../test/support/tiny-package.js';
import { createEngineHost } from '../engine/child-engine-host.js';
import type { EngineHost, EngineSpec } from '../engine/engine-host.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { createLatencyRecorder } from '../latency/latency-recorder.js';
import { createLocalServing, type LocalServing, type LocalServingOptions } from './local-serving.js';

const entry = new URL('../../dist/engine/engine-process.js', import.meta.url);
const request = (over: { maxTokens?: number; text?: string; requestId?: string; output?: Output } = {}) => ({
  requestId: over.requestId ?? '',
  messages: [{ role: Role.ROLE_USER, parts: [{ content: { $case: 'text' as const, value: over.text ?? 'on' } }] }],
  sampling: undefined,
  maxTokens: over.maxTokens ?? 5,
  task: '',
  output: over.output,
});

interface Answer {
  readonly events: GenerateResponse[];
  readonly error: ServiceError | undefined;
  readonly trailers: Metadata | undefined;
}

let tiny: TinyPackage;
let dir: string;
let host: EngineHost;
let supervisor: Supervisor;
let serving: LocalServing;
let client: InferenceServiceClient;
let tcp: InferenceServiceClient;
const latency = createLatencyRecorder();

const spec = (over: Partial<EngineSpec> = {}): EngineSpec => ({
  modelVersionId: 'v1',
  modelName: 'tiny',
  sliceId: 'full',
  manifestPath: tiny.manifestPath,
  storeDir: tiny.dir,
  contextTokens: 128,
  precision: 'fp32',
  ...over,
});
const options = (over: Partial<LocalServingOptions> = {}): LocalServingOptions => ({
  supervisor,
  latency,
  state: () => ({ deviceId: 'd-1', deviceName: 'kiosk', online: false, desiredGeneration: 7, observedGeneration: 6 }),
  socketPath: join(dir, 'agent.sock'),
  port: 0,
  ...over,
});

beforeAll(async () => {
  tiny = await tinyPackage();
  dir = await mkdtemp(join(tmpdir(), 'matfleet-serving-'));
  host = createEngineHost({ modelMemoryBytes: 64 * 2 ** 20, availableMemoryBytes: () => 2 ** 32, entry });
  supervisor = createSupervisor({ host });
  await supervisor.promote(await host.start(spec()));
  serving = createLocalServing(options());
  const { socket, port } = await serving.start();
  client = new InferenceServiceClient(`unix:${socket}`, credentials.createInsecure());
  tcp = new InferenceServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
}, 60_000);

afterAll(async () => {
  client.close();
  tcp.close();
  await serving.stop();
  await supervisor.stop();
  await rm(dir, { recursive: true, force: true });
  await tiny.remove();
});

function ask(
  over: Parameters<typeof request>[0] = {},
  { deadlineMs = 30_000, onDelta = (_cancel: () => void): void => {}, to = client } = {},
): Promise<Answer> {
  return new Promise((resolve) => {
    const events: GenerateResponse[] = [];
    let trailers: Metadata | undefined;
    const call = to.generate(request(over), new Metadata(), { deadline: Date.now() + deadlineMs });
    call.on('data', (event: GenerateResponse) => {
      events.push(event);
      if (event.event?.$case === 'delta') onDelta(() => call.cancel());
    });
    call.on('status', ({ metadata }) => (trailers = metadata));
    call.on('error', (error: ServiceError) => resolve({ events, error, trailers }));
    // The status comes after the last message.
    call.on('end', () => setImmediate(() => resolve({ events, error: undefined, trailers })));
  });
}

const getStatus = (): Promise<GetStatusResponse> =>
  new Promise((resolve, reject) => client.getStatus({}, (error, response) => (error ? reject(error) : resolve(response))));

const refusalOf = (error: ServiceError | undefined): Refusal => Refusal.decode(error!.metadata.get('matfleet-refusal-bin')[0] as Buffer);

async function idle(): Promise<void> {
  while (serving.inFlight() > 0) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe('local serving, with no control plane anywhere', () => {
  it('streams started, one delta a token, finished; over the socket and over loopback', async () => {
    for (const to of [client, tcp]) {
      const { events, error } = await ask({ maxTokens: 4, requestId: 'r-1' }, { to });
      expect(error).toBeUndefined();
      expect(events.map(({ event }) => event!.$case)).toEqual(['started', 'delta', 'delta', 'delta', 'delta', 'finished']);
      expect(events[0]!.event!.value).toMatchObject({ requestId: 'r-1', deviceId: 'd-1', modelVersionId: 'v1', modelName: 'tiny', sliceId: 'full' });
      expect(events.at(-1)!.event!.value).toMatchObject({ reason: FinishReason.FINISH_REASON_MAX_TOKENS, outputTokens: 4 });
    }
  });

  it('says what it runs, and that it is offline', async () => {
    expect(await getStatus()).toMatchObject({
      deviceName: 'kiosk',
      sliceId: 'full',
      online: false,
      engineReady: true,
      contextTokens: 128,
      desiredGeneration: 7n,
    });
    expect((await getStatus()).memoryLimitBy).toMatch(/^(cgroup-v1|cgroup-v2|watchdog)$/);
  });

  it('counts rows of per-layer embeddings that came from disk, how long they took, and those that were there already', async () => {
    const counters = async (): Promise<Record<'rowsRead' | 'hits' | 'reads' | 'readMs' | 'readMsMax', number>> => {
      const now = await getStatus();
      expect(now.hotRowBytes).toBeGreaterThan(0n);
      expect(now.pleRowsCached).toBeGreaterThan(0n);
      const [rowsRead, hits, reads] = [now.pleRowsRead, now.pleCacheHits, now.pleReads].map(Number) as [number, number, number];
      return { rowsRead, hits, reads, readMs: now.pleReadMs, readMsMax: now.pleReadMsMax };
    };
    const question = async (text: string): ReturnType<typeof counters> => {
      expect((await ask({ text, maxTokens: 1 })).error).toBeUndefined();
      await idle(); // counters come with the end of an answer
      return counters();
    };
    const first = await question('on');
    const second = await question('lights off');
    expect(second.rowsRead).toBeGreaterThan(first.rowsRead);
    expect(second.reads).toBeGreaterThan(first.reads);
    expect(second.readMs).toBeGreaterThan(first.readMs);
    expect(second.readMsMax).toBeGreaterThanOrEqual(first.readMsMax);
    expect(second.readMsMax).toBeLessThanOrEqual(second.readMs);
    const third = await question('on');
    expect(third.hits).toBeGreaterThan(second.hits);
  });

  it('gives the socket to its own user alone', async () => {
    expect((await stat(join(dir, 'agent.sock'))).mode & 0o777).toBe(0o600);
  });

  it('answers the health service', async () => {
    const { Client } = await import('@grpc/grpc-js');
    const health = new Client(`unix:${join(dir, 'agent.sock')}`, credentials.createInsecure());
    const { path, requestSerialize, responseDeserialize } = healthService.Check!;
    const response = await new Promise((resolve, reject) =>
      health.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service: 'matfleet.inference.v1.InferenceService' }, (error, value) =>
        error ? reject(error) : resolve(value),
      ),
    );
    health.close();
    expect(response).toMatchObject({ status: 'SERVING' });
  });

  it('describes itself to tools that ask by reflection', async () => {
    const { Client } = await import('@grpc/grpc-js');
    const tool = new Client(`unix:${join(dir, 'agent.sock')}`, credentials.createInsecure());
    // ServerReflectionRequest{ list_services: "*" } and, in the answer, the names as they stand.
    const call = tool.makeBidiStreamRequest<Buffer, Buffer>(
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      (bytes) => bytes,
      (bytes) => bytes,
    );
    call.write(Buffer.from([0x3a, 0x01, 0x2a]));
    const listed = await new Promise<Buffer>((resolve, reject) => call.once('data', resolve).once('error', reject));
    call.end();
    tool.close();
    expect(listed.toString('latin1')).toContain('matfleet.inference.v1.InferenceService');
  });

  it('stops the engine when the client cancels', async () => {
    let deltas = 0;
    const { error } = await ask({ maxTokens: 100 }, { onDelta: (cancel) => ++deltas === 3 && cancel() });
    expect(error!.code).toBe(status.CANCELLED);
    await idle();
    expect((await ask({ maxTokens: 1 })).error).toBeUndefined();
  });

  it('honours the deadline of a call, also while it waits its turn', async () => {
    const engine = supervisor.current()!;
    process.kill(engine.pid, 'SIGSTOP');
    const from = Date.now();
    const answers = await Promise.all([ask({ maxTokens: 100 }, { deadlineMs: 400 }), ask({}, { deadlineMs: 400 })]);
    process.kill(engine.pid, 'SIGCONT');
    expect(answers.map(({ error }) => error!.code)).toEqual([status.DEADLINE_EXCEEDED, status.DEADLINE_EXCEEDED]);
    expect(Date.now() - from).toBeLessThan(3_000);
    await idle();
    expect((await ask()).error).toBeUndefined();
  });

  it('lets eight wait behind one and refuses the tenth with a reason and a time to come back', async () => {
    const engine = supervisor.current()!;
    process.kill(engine.pid, 'SIGSTOP');
    const answers = Array.from({ length: 9 }, () => ask());
    while (serving.queueLength() < 8) await new Promise((resolve) => setTimeout(resolve, 10));
    const tenth = await ask();
    process.kill(engine.pid, 'SIGCONT');
    expect(tenth.error!.code).toBe(status.RESOURCE_EXHAUSTED);
    const refusal = refusalOf(tenth.error);
    expect(refusal.code).toBe(Refusal_Code.CODE_QUEUE_FULL);
    expect(refusal.message).toContain('8');
    expect(refusal.retryAfterMs).toBeGreaterThanOrEqual(100);
    for (const { error } of await Promise.all(answers)) expect(error).toBeUndefined();
  });

  it('refuses a prompt that does not fit the context of 128, with both numbers', async () => {
    const { error } = await ask({ text: 'lights '.repeat(100) });
    expect(error!.code).toBe(status.INVALID_ARGUMENT);
    expect(refusalOf(error).code).toBe(Refusal_Code.CODE_PROMPT_TOO_LONG);
    expect(error!.details).toMatch(/the prompt has \d{3,} tokens; the context of 128/);
  });

  it('refuses a prompt that does not fit while another answer runs, before its turn', async () => {
    const engine = supervisor.current()!;
    const running = ask({ maxTokens: 60 });
    while (serving.inFlight() === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const { error } = await ask({ text: 'lights '.repeat(100) });
    expect(refusalOf(error).code).toBe(Refusal_Code.CODE_PROMPT_TOO_LONG);
    expect(engine.inFlight()).toBe(1);
    expect((await running).error).toBeUndefined();
  });

  it('refuses at once, with the estimate, a request whose deadline would pass before its turn', async () => {
    const engine = supervisor.current()!;
    process.kill(engine.pid, 'SIGSTOP');
    const running = Array.from({ length: 6 }, () => ask({ maxTokens: 100 }));
    while (serving.queueLength() < 5) await new Promise((resolve) => setTimeout(resolve, 10));
    const from = Date.now();
    const { error } = await ask({}, { deadlineMs: 60 });
    process.kill(engine.pid, 'SIGCONT');
    expect(error!.code).toBe(status.DEADLINE_EXCEEDED);
    expect(refusalOf(error)).toMatchObject({
      code: Refusal_Code.CODE_DEADLINE,
      message: expect.stringMatching(/expected in \d+ ms, after the deadline/),
    });
    expect(Date.now() - from).toBeLessThan(55);
    await Promise.all(running);
  });

  it('tells in its trailers who answered and how fast', async () => {
    const { trailers } = await ask({ maxTokens: 4 });
    const told = (name: string): string => String(trailers!.get(`x-matfleet-${name}`)[0]);
    expect([told('device'), told('slice'), told('precision'), told('output-tokens')]).toEqual(['kiosk', 'full', 'fp32', '4']);
    expect(Number(told('ttft-ms'))).toBeGreaterThan(0);
    expect(Number(told('inter-token-ms'))).toBeGreaterThan(0);
  });

  it('ends an answer before a stop text, and gives what only began like one', async () => {
    const text = ({ events }: Answer): string => events.map(({ event }) => (event?.$case === 'delta' ? event.value.text : '')).join('');
    const whole = text(await ask({ maxTokens: 30 }));
    const stop = whole.slice(6, 9);
    const stopped = await ask({ maxTokens: 30, output: { stop: [stop] } });
    expect(text(stopped)).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(stopped.events.at(-1)!.event!.value).toMatchObject({ reason: FinishReason.FINISH_REASON_STOP });
    expect(text(await ask({ maxTokens: 30, output: { stop: [`${whole.at(-1)}nothing like it`] } }))).toBe(whole);
    expect((await ask({ output: { stop: ['a', 'b', 'c', 'd', 'e'] } })).error!.code).toBe(status.INVALID_ARGUMENT);
  });

  it('says that it answers text only when a part is an image', async () => {
    const error = await new Promise<ServiceError>((resolve) => {
      // Field 2 of a part: what an image will be.
      const image = Buffer.from([0x12, 0x07, 0x08, 0x02, 0x12, 0x03, 0x12, 0x01, 0x00]);
      const call = client.makeServerStreamRequest<Buffer, Buffer>(
        '/matfleet.inference.v1.InferenceService/Generate',
        (b) => b,
        (b) => b,
        image,
      );
      call.on('error', (e: ServiceError) => resolve(e));
      call.on('data', () => {});
    });
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(error.details).toContain('part 1 of message 1 is not text');
  });

  it('ends an answer with UNAVAILABLE when its engine is killed, and serves again without a restart of the agent', async () => {
    const { pid } = supervisor.current()!;
    const { events, error } = await ask({ maxTokens: 100 }, { onDelta: () => process.kill(pid, 'SIGKILL') });
    expect(events.length).toBeGreaterThan(1);
    expect(error!.code).toBe(status.UNAVAILABLE);
    expect(refusalOf(error)).toMatchObject({ code: Refusal_Code.CODE_ENGINE_RESTARTING });
    expect((await ask()).error).toBeUndefined();
    const after = await getStatus();
    expect(after.enginePid).not.toBe(pid);
    expect(after.engineRestarts).toBe(1);
  });

  it('runs an inference of the control plane through the same queue, and refuses one meant for another slice', async () => {
    const start = { attemptId: 'a-1', remainingMs: 20_000, request: request({ maxTokens: 3 }), modelVersionId: 'v1', sliceId: 'full' };
    const events: GenerateResponse[] = [];
    await serving.generateRemote(start, (event) => void events.push(event), new AbortController().signal);
    expect(events.map(({ event }) => event!.$case)).toEqual(['started', 'delta', 'delta', 'delta', 'finished']);
    const other = serving.generateRemote({ ...start, sliceId: 'narrow' }, () => {}, new AbortController().signal);
    await expect(other).rejects.toMatchObject({ code: status.FAILED_PRECONDITION, message: 'slice full answers now, not narrow' });
    const late = serving.generateRemote({ ...start, remainingMs: 0 }, () => {}, new AbortController().signal);
    await expect(late).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
  });

  it('measured every answer', () => {
    const [report] = latency.drain();
    expect(report).toMatchObject({ modelVersionId: 'v1', sliceId: 'full' });
    expect(report!.ttftMs!.count).toBeGreaterThan(9n);
    expect(report!.interTokenMs!.count).toBeGreaterThan(30n);
    expect(report!.failed).toBe(1n);
  });
});

describe('a socket path', () => {
  it('is taken over from an agent that was killed, and left alone when somebody answers or it is no socket', async () => {
    const path = join(dir, 'other.sock');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const second = createLocalServing(options({ socketPath: path }));
    await expect(second.start()).rejects.toThrow(`another process serves on ${path}`);
    await new Promise((resolve) => server.close(resolve));

    const killed = join(dir, 'killed.sock');
    const { execFileSync } = await import('node:child_process');
    const listenAndDie = `require('net').createServer().listen(${JSON.stringify(killed)},()=>process.kill(process.pid,'SIGKILL'))`;
    expect(() => execFileSync(process.execPath, ['-e', listenAndDie])).toThrow();
    expect((await stat(killed)).isSocket()).toBe(true);
    const third = createLocalServing(options({ socketPath: killed }));
    await third.start();
    await third.stop();

    const file = join(dir, 'notes.txt');
    await writeFile(file, 'mine');
    await expect(createLocalServing(options({ socketPath: file })).start()).rejects.toThrow('is not a socket');
    expect(await readFile(file, 'utf8')).toBe('mine');
    await expect(createLocalServing(options({ socketPath: join(dir, 'x'.repeat(120)) })).start()).rejects.toThrow(
      /has \d+ bytes; the system allows 10/,
    );
  });

  it('refuses with FAILED_PRECONDITION and a reason before any slice is active', async () => {
    const path = join(dir, 'empty.sock');
    const empty = createLocalServing(options({ socketPath: path, supervisor: createSupervisor({ host }) }));
    await empty.start();
    const to = new InferenceServiceClient(`unix:${path}`, credentials.createInsecure());
    const { error } = await ask({}, { to });
    expect(error!.code).toBe(status.FAILED_PRECONDITION);
    expect(refusalOf(error).code).toBe(Refusal_Code.CODE_NO_SLICE);
    to.close();
    await empty.stop();
  });
});
