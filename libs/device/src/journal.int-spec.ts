import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { beginActivation, commit, fail, JournalFile, storeDesired, type Slot } from './journal.js';

const BUILT = new URL('../dist/journal.js', import.meta.url).href;
const slot = (generation: number): Slot => ({ generation, modelVersionId: 'v1', modelName: 'nano', sliceId: `s${generation}`, contextTokens: 512 });

describe('the journal on disk', () => {
  let dir: string;
  let path: string;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'journal-'));
    path = join(dir, 'journal.json');
  });

  afterEach(() => rm(dir, { recursive: true, force: true }));

  const open = (nowMs = 0) => new JournalFile(path, nowMs);

  it('starts empty, and holds every update as soon as it returns', () => {
    const journal = open();
    expect(journal.current).toEqual({});
    journal.update((state) => storeDesired(state, slot(1)));
    expect(open().current).toEqual({ desired: slot(1) });
    journal.update((state) => fail(state, 1, { error: 'no space left', final: false }, 5));
    expect(open().current).toEqual(journal.current);
  });

  it('is not written when an update changes nothing', async () => {
    const journal = open();
    journal.update((state) => storeDesired(state, slot(2)));
    const before = await stat(path);
    journal.update((state) => storeDesired(state, slot(1)));
    expect((await stat(path)).ino).toBe(before.ino);
  });

  it('counts a try that its process did not survive as failed, keeps what was active, and does so once', () => {
    const journal = open();
    journal.update((state) => commit(beginActivation(state, slot(1))));
    journal.update((state) => beginActivation(storeDesired(state, slot(2)), slot(2)));
    const error = 'the agent ended while it tried slice s2 (verifying)';
    const recovered = {
      desired: slot(2),
      active: slot(1),
      failure: { generation: 2, attempts: 1, error, final: false, retryAtMs: 9_000, kind: 'interrupted' },
      activation: { generation: 2, step: 'rejected', reason: error, failure: 'interrupted' },
    };
    expect(open(7_000).current).toEqual(recovered);
    expect(open(8_000).current).toEqual(recovered);
  });

  it('gives up a slice whose tries keep ending the process', () => {
    open().update((state) => storeDesired(state, slot(1)));
    for (let i = 0; i < 5; i++) open().update((state) => beginActivation(state, slot(1)));
    expect(open().current.failure).toMatchObject({ attempts: 5, final: true });
  });

  it('starts empty, and keeps the bytes aside, when the file is damaged', async () => {
    open().update((state) => storeDesired(state, slot(1)));
    const torn = (await readFile(path, 'utf8')).slice(0, 60);
    await writeFile(path, torn);
    expect(open().current).toEqual({});
    expect(await readFile(`${path}.damaged`, 'utf8')).toBe(torn);
    open().update((state) => storeDesired(state, slot(1)));
    expect(open().current).toEqual({ desired: slot(1) });
  });

  it('never loses an update that returned, nor what was active, when its process is killed at a random moment', async () => {
    const program = `
      const { JournalFile, beginActivation, commit, storeDesired } = await import(${JSON.stringify(BUILT)});
      const { writeSync } = await import('node:fs');
      const journal = new JournalFile(process.argv[1], 0);
      for (let generation = (journal.current.desired?.generation ?? 0) + 1; generation < 1_000_000; generation++) {
        const slot = { generation, modelVersionId: 'v1', modelName: 'nano', sliceId: 's' + generation, contextTokens: 512 };
        journal.update((state) => storeDesired(state, slot));
        journal.update((state) => beginActivation(state, slot));
        journal.update(commit);
        writeSync(1, generation + '\\n');
      }`;
    for (let round = 0, before = 0; round < 10; round++) {
      const delayMs = Math.random() * 40;
      const agent = spawn(process.execPath, ['--input-type=module', '-e', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      let told = '';
      agent.stdout.on('data', (data: Buffer) => (told += data.toString()));
      await once(agent.stdout, 'data', { signal: AbortSignal.timeout(10_000) });
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      agent.kill('SIGKILL');
      await once(agent, 'close', { signal: AbortSignal.timeout(5_000) });
      const committed = Number(told.trim().split('\n').at(-1));
      expect(committed).toBeGreaterThan(before);
      const { desired, active, previous, provisional, failure } = open().current;
      const next = active?.generation === committed + 1;
      expect({ delayMs, active }).toEqual({ delayMs, active: slot(next ? committed + 1 : committed) });
      expect(previous?.generation ?? 0).toBeLessThan(active!.generation);
      expect([active!.generation, active!.generation + 1]).toContain(desired!.generation);
      expect(provisional).toBeUndefined();
      if (failure) expect(failure).toMatchObject({ generation: active!.generation + 1, attempts: 1 });
      before = desired!.generation;
    }
    expect((await readdir(dir)).filter((name) => name.endsWith('.damaged'))).toEqual([]);
  }, 40_000);
});
