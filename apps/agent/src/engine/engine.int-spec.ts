import { spawn } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { tinyPackage, type TinyPackage } from '../../../../test/support/tiny-package.js';
import { ownMemoryCgroup } from './cgroup.js';
import { createEngineHost, type EngineHostOptions } from './child-engine-host.js';
import type { EngineEvent, EngineSpec, RunningEngine } from './engine-host.js';
import { limitMemory } from './memory-limit.js';
import { createSupervisor, type Supervisor } from './supervisor.js';

const MIB = 2 ** 20;
const entry = new URL('../../dist/engine/engine-process.js', import.meta.url);
const prompt = { messages: [{ role: 'user' as const, text: 'lights off' }] };

let tiny: TinyPackage;
beforeAll(async () => {
  tiny = await tinyPackage();
}, 60_000);
afterAll(() => tiny.remove());

const spec = (over: Partial<EngineSpec> = {}): EngineSpec => ({
  modelVersionId: 'v1',
  modelName: 'tiny',
  sliceId: 'full',
  manifestPath: tiny.manifestPath,
  storeDir: tiny.dir,
  contextTokens: 256,
  ...over,
});
const host = (over: Partial<EngineHostOptions> = {}) =>
  createEngineHost({ modelMemoryBytes: 64 * MIB, availableMemoryBytes: () => 4096 * MIB, entry, ...over });

async function until<T>(what: string, check: () => T | undefined | false | Promise<T | undefined | false>, timeoutMs = 20_000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The engine's own process, which also writes down what it asked ONNX Runtime for: one line of JSON for each session. */
async function recordingEntry(log: string): Promise<URL> {
  const vendor = pathToFileURL(createRequire(import.meta.url).resolve('onnxruntime-node')).href;
  const file = pathToFileURL(join(tiny.dir, 'recording-engine-process.mjs'));
  await writeFile(
    file,
    `import { appendFileSync } from 'node:fs';
     import vendor from ${JSON.stringify(vendor)};
     const { InferenceSession } = vendor;
     const create = InferenceSession.create;
     InferenceSession.create = (graph, options) => {
       appendFileSync(${JSON.stringify(log)}, JSON.stringify(options) + '\\n');
       return create.call(InferenceSession, graph, options);
     };
     await import(${JSON.stringify(entry.href)});`,
  );
  return file;
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('an engine process', () => {
  let engine: RunningEngine | undefined;
  afterEach(() => engine?.stop());

  it('streams as many tokens as asked, and repeats them as a golden prompt', async () => {
    engine = await host().start(spec());
    const events: EngineEvent[] = [];
    const finished = await engine.generate({ promptIds: [2, 10, 20], maxTokens: 7 }, (event) => void events.push(event));
    expect(finished).toMatchObject({ reason: 'max-tokens', outputTokens: 7, promptTokens: 3 });
    expect(events.map(({ kind }) => kind)).toEqual(['started', ...Array(7).fill('token')]);
    const ids = events.flatMap((event) => (event.kind === 'token' ? [event.tokenId] : []));
    expect((await engine.golden([2, 10, 20], 7)).tokenIds).toEqual(ids);
  });

  it('computes of a second turn only what is new, and of a golden prompt everything', async () => {
    engine = await host().start(spec());
    const ids: number[] = [];
    const promptIds = [2, 10, 20, 30, 40];
    await engine.generate({ promptIds, maxTokens: 6 }, (event) => void (event.kind === 'token' && ids.push(event.tokenId)));
    const turn = { promptIds: [...promptIds, ...ids, 50, 60], maxTokens: 3 };
    // The answer's last token was given out and not yet computed.
    expect(await engine.generate(turn, () => {})).toMatchObject({ promptTokens: 13, cachedPromptTokens: 10 });
    expect((await engine.generate({ ...turn, reproducible: true }, () => {})).cachedPromptTokens).toBe(0);
  });

  it('waits for a slow reader after 32 tokens and does not count that as its own latency', async () => {
    engine = await host().start(spec());
    let taken = 0;
    let arrived = 0;
    const steps: number[] = [];
    const finished = await engine.generate({ ...prompt, maxTokens: 60 }, async (event) => {
      if (event.kind !== 'token') return;
      steps.push(event.stepMs);
      arrived += 1;
      if (++taken === 1) await new Promise((resolve) => setTimeout(resolve, 1_500));
    });
    expect(arrived).toBe(60);
    expect(finished.outputTokens).toBe(60);
    expect(Math.max(...steps)).toBeLessThan(1_000);
  });

  it('stops between two tokens when cancelled, and answers the next request', async () => {
    engine = await host().start(spec());
    const abort = new AbortController();
    let tokens = 0;
    const finished = await engine.generate(prompt, (event) => void (event.kind === 'token' && ++tokens === 3 && abort.abort()), abort.signal);
    expect(finished.reason).toBe('cancelled');
    expect(finished.outputTokens).toBeLessThan(60);
    expect((await engine.generate({ ...prompt, maxTokens: 2 }, () => {})).outputTokens).toBe(2);
  });

  it('refuses a prompt that does not fit with the numbers', async () => {
    engine = await host().start(spec({ contextTokens: 16 }));
    const promptIds = Array.from({ length: 20 }, (_, i) => i + 3);
    await expect(engine.generate({ promptIds }, () => {})).rejects.toMatchObject({
      code: 'prompt-too-long',
      message: expect.stringContaining('20 tokens') as unknown as string,
    });
  });

  it('keeps rows of embeddings within their bytes, and reads the others from disk again', async () => {
    const hotRowBytes = 16_384;
    engine = await host().start(spec({ hotRowBytes }));
    const promptIds = [2, ...Array.from({ length: 100 }, (_, i) => 10 + i)];
    await engine.generate({ promptIds, maxTokens: 1 }, () => {});
    const first = engine.status();
    // Backwards, so that nothing of the first prompt's context serves again.
    await engine.generate({ promptIds: promptIds.reverse(), maxTokens: 1 }, () => {});
    const second = engine.status();
    expect(first.hotRowBytes).toBeGreaterThan(0);
    expect(first.hotRowBytes).toBeLessThanOrEqual(hotRowBytes);
    expect(first.pleRowsRead).toBeGreaterThanOrEqual(101);
    expect(second.pleRowsCached).toBe(first.pleRowsCached);
    // 101 different rows through a smaller cache: the rest at least must come from disk again.
    expect(first.pleRowsCached).toBeLessThan(101);
    expect(second.pleRowsRead - first.pleRowsRead).toBeGreaterThanOrEqual(101 - first.pleRowsCached);
    expect(second.pleReads).toBeGreaterThan(first.pleReads);
    expect(second.pleReadMs).toBeGreaterThan(first.pleReadMs);
    expect(second.pleReadMsMax).toBeLessThanOrEqual(second.pleReadMs);
  });

  it('reads no row twice when the cache holds them all', async () => {
    engine = await host().start(spec({ hotRowBytes: 2 ** 20 }));
    const promptIds = [2, 10, 11, 12];
    await engine.generate({ promptIds, maxTokens: 4 }, () => {});
    const first = engine.status();
    await engine.generate({ promptIds, maxTokens: 4 }, () => {});
    const second = engine.status();
    expect(second.pleRowsRead).toBe(first.pleRowsRead);
    expect(second.pleReads).toBe(first.pleReads);
    expect(second.pleCacheHits).toBeGreaterThan(first.pleCacheHits);
  });

  it.each([
    { box: 'dedicated' as const, spins: '1' },
    { box: 'shared' as const, spins: '0' },
    { box: undefined, spins: '0' },
  ])('lets the threads of the runtime wait busily or not as the box allows: $box', async ({ box, spins }) => {
    const log = join(tiny.dir, `sessions-${box}.jsonl`);
    engine = await host({ entry: await recordingEntry(log), threads: 2, ...(box && { box }) }).start(spec());
    expect((await engine.generate({ ...prompt, maxTokens: 1 }, () => {})).outputTokens).toBe(1);
    const sessions = (await readFile(log, 'utf8')).trim().split('\n');
    expect(sessions.map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({ intraOpNumThreads: 2, extra: { session: { intra_op: { allow_spinning: spins }, force_spinning_stop: '1' } } }),
    ]);
  });

  it('names the slice and the cause when it cannot start, and leaves no process', async () => {
    await expect(host().start(spec({ sliceId: 'wide' }))).rejects.toThrow(/slice wide of tiny did not start: .*full, narrow/);
    await expect(host({ startTimeoutMs: 5 }).start(spec())).rejects.toThrow(/not ready within 5 ms/);
  });

  it('ends when its agent is killed', async () => {
    const program = `
      const { createEngineHost } = await import(${JSON.stringify(new URL('../../dist/engine/child-engine-host.js', import.meta.url).href)});
      const engine = await createEngineHost({ modelMemoryBytes: ${64 * MIB}, availableMemoryBytes: () => 0 }).start(${JSON.stringify(spec())});
      console.log(engine.pid);
      setInterval(() => {}, 1000);`;
    const agent = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = Number(await new Promise<string>((resolve) => agent.stdout.once('data', (data: Buffer) => resolve(String(data)))));
    expect(isAlive(pid)).toBe(true);
    agent.kill('SIGKILL');
    await until('the engine to end', () => !isAlive(pid), 5_000);
  });
});

describe('a memory limit', () => {
  /** Grows by 8 MiB every 20 ms, up to 400 MiB. */
  const hog = () => spawn(process.execPath, ['-e', 'const a=[];setInterval(()=>a.length<50&&a.push(Buffer.alloc(8<<20,1)),20)'], { stdio: 'ignore' });

  it('kills a process that outgrows it by watching its resident size', async () => {
    const child = hog();
    const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
    const limit = await limitMemory(child.pid!, 150 * MIB, { kill: () => child.kill('SIGKILL'), prefer: 'watchdog' });
    expect(limit.by).toBe('watchdog');
    expect(await ended).toBe('SIGKILL');
    expect(await limit.exceeded()).toBe(true);
    await limit.release();
  });

  it('kills it through a control group where one can be made, says which, and leaves no group behind', async () => {
    const child = hog();
    const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
    let fallback = '';
    const limit = await limitMemory(child.pid!, 150 * MIB, { kill: () => child.kill('SIGKILL'), onFallback: (reason) => (fallback = reason) });
    expect(await ended).toBe('SIGKILL');
    expect(await limit.exceeded()).toBe(true);
    await limit.release();
    const place = await ownMemoryCgroup();
    if (limit.by === 'watchdog') expect(fallback).not.toBe('');
    else expect((await readdir(place!.group)).filter((name) => name.includes(`-${child.pid}`))).toEqual([]);
  });

  it('stands beside the runtime that the engine measured', async () => {
    const engine = await host({ modelMemoryBytes: 8 * MIB, memoryLimit: 'watchdog' }).start(spec());
    const { runtimeBytes, memoryLimitBytes, rssBytes, memoryLimitBy, runtimeVersion, executionProviders } = engine.status();
    expect(runtimeVersion).toMatch(/^\d+\.\d+\.\d+$/);
    expect(executionProviders).toEqual(['cpu']);
    expect(memoryLimitBy).toBe('watchdog');
    expect(runtimeBytes).toBeGreaterThan(30 * MIB);
    expect(memoryLimitBytes).toBe(8 * MIB + Math.ceil(runtimeBytes * 1.5) + 64 * MIB);
    expect(rssBytes).toBeLessThan(memoryLimitBytes);
    const kib = Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${engine.pid}/status`, 'utf8'))![1]);
    expect(Math.abs(kib * 1024 - rssBytes)).toBeLessThan(64 * MIB);
    await engine.stop();
    expect(isAlive(engine.pid)).toBe(false);
  });
});

describe('a supervisor', () => {
  let supervisor: Supervisor;
  afterEach(() => supervisor.stop());

  it('ends the running answer with a typed error when the engine is killed, and has a new one soon', async () => {
    const engineHost = host();
    supervisor = createSupervisor({ host: engineHost });
    await supervisor.promote(await engineHost.start(spec()));
    const first = supervisor.current()!;
    const broken = first.generate(prompt, (event) => void (event.kind === 'token' && process.kill(first.pid, 'SIGKILL')));
    await expect(broken).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('SIGKILL') as unknown as string });
    expect(supervisor.current()).toBeUndefined();
    const second = await supervisor.ready(AbortSignal.timeout(20_000));
    expect(second!.pid).not.toBe(first.pid);
    expect(supervisor.stats()).toMatchObject({ restarts: 1, ready: true, enginePid: second!.pid, crashLooping: false });
    expect((await second!.generate({ ...prompt, maxTokens: 3 }, () => {})).outputTokens).toBe(3);
  });

  it('lets the replaced engine finish its answer before it stops', async () => {
    const engineHost = host();
    supervisor = createSupervisor({ host: engineHost });
    const old = await engineHost.start(spec());
    await supervisor.promote(old);
    const next = await engineHost.start(spec({ sliceId: 'narrow' }));
    let promoted: Promise<void> | undefined;
    const answer = old.generate({ ...prompt, maxTokens: 100 }, () => void (promoted ??= supervisor.promote(next)));
    expect(await answer).toMatchObject({ reason: 'max-tokens', outputTokens: 100 });
    await promoted;
    expect(supervisor.current()!.spec.sliceId).toBe('narrow');
    expect(isAlive(old.pid)).toBe(false);
    expect(supervisor.stats().restarts).toBe(0);
  });

  it('tells every crash, calls a row of them a loop and keeps trying', async () => {
    const crashes: string[] = [];
    supervisor = createSupervisor({ host: host(), policy: { firstMs: 1, capMs: 2, healthyMs: 60_000, loopExits: 3 } });
    supervisor.onCrash((failed) => crashes.push(failed.sliceId));
    supervisor.resume(spec({ sliceId: 'wide' }));
    await until('a crash loop', () => supervisor.stats().crashLooping);
    await until('another try', () => crashes.length > 3);
    expect(new Set(crashes)).toEqual(new Set(['wide']));
    expect(supervisor.stats().lastExit).toContain('has no slice "wide"');
    await supervisor.clear();
    expect(await supervisor.ready(AbortSignal.timeout(1_000))).toBeUndefined();
  });
});
