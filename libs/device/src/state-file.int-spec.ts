import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { readStateFile, writeFileDurably } from './state-file.js';

const BUILT = new URL('../dist/state-file.js', import.meta.url).href;
const Numbered = z.object({ number: z.number(), filler: z.string() });

describe('a state file', () => {
  let dir: string;
  let path: string;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'state-file-'));
    path = join(dir, 'state.json');
  });

  afterEach(() => rm(dir, { recursive: true, force: true }));

  const write = (number: number) => writeFileDurably(path, JSON.stringify({ number, filler: 'x' }));
  const read = () => readStateFile(path, Numbered)?.number;

  it('reads back what was written last, readable by its owner alone', async () => {
    expect(read()).toBeUndefined();
    write(1);
    write(2);
    expect(read()).toBe(2);
    expect(await readdir(dir)).toEqual(['state.json']);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  it('is set aside when it was cut anywhere, and can be written again', async () => {
    write(1);
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length++) {
      await writeFile(path, whole.subarray(0, length));
      expect(read()).toBeUndefined();
      expect(await readFile(`${path}.damaged`)).toEqual(whole.subarray(0, length));
      expect(await readdir(dir)).toEqual(['state.json.damaged']);
      write(2);
      expect(read()).toBe(2);
    }
  });

  it.each([
    ['zeros, as some file systems leave after power loss', '\0'.repeat(40)],
    ['another shape', '{"number":"one"}'],
    ['no object', 'null'],
  ])('is set aside when it holds %s', async (_what, content) => {
    await writeFile(path, content);
    expect(read()).toBeUndefined();
    expect(await readFile(`${path}.damaged`, 'utf8')).toBe(content);
  });

  it('is not taken for missing when it cannot be read', async () => {
    await mkdir(path);
    expect(read).toThrow(/EISDIR/);
  });

  it('holds the old or the new content wherever its writer dies, and the next writer succeeds', async () => {
    const seen: (number | undefined)[] = [];
    for (let survived = 0, died = true; died; survived++) {
      write(1);
      died = await writeAndDieAfter(survived, path, JSON.stringify({ number: 2, filler: 'x'.repeat(5_000) }));
      seen.push(read());
      write(3);
      expect(read()).toBe(3);
    }
    expect(await readdir(dir)).toEqual(['state.json']);
    // Open, write, sync, close, rename; from there on the new one is seen.
    expect(seen).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 2]);
  }, 20_000);

  it('holds the last or the next content when its writer is killed at a random moment', async () => {
    const program = `
      const { writeFileDurably } = await import(${JSON.stringify(BUILT)});
      const { writeSync } = await import('node:fs');
      for (let number = 1; number < 100_000; number++) {
        writeFileDurably(process.argv[1], JSON.stringify({ number, filler: 'x'.repeat(2 ** 20) }));
        writeSync(1, number + '\\n');
      }`;
    for (let round = 0; round < 10; round++) {
      const delayMs = Math.random() * 60;
      const writer = spawn(process.execPath, ['--input-type=module', '-e', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      let told = '';
      writer.stdout.on('data', (data: Buffer) => (told += data.toString()));
      await once(writer.stdout, 'data', { signal: AbortSignal.timeout(10_000) });
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      writer.kill('SIGKILL');
      await once(writer, 'close', { signal: AbortSignal.timeout(5_000) });
      const last = Number(told.trim().split('\n').at(-1));
      const stored = readStateFile(path, Numbered);
      expect({ delayMs, number: stored?.number }).toEqual({ delayMs, number: stored?.number === last + 1 ? last + 1 : last });
      expect(stored?.filler).toHaveLength(2 ** 20);
    }
  }, 40_000);
});

/**
 * Writes in a process of its own that is killed at its system call number `survived`, counted from 0; of a write half is done by then.
 * False when the process came to its end because there were no more calls.
 */
async function writeAndDieAfter(survived: number, path: string, data: string): Promise<boolean> {
  const program = `
    import fs from 'node:fs';
    import { syncBuiltinESMExports } from 'node:module';
    const [path, data] = process.argv.slice(1);
    const { writeFileDurably } = await import(${JSON.stringify(BUILT)});
    let left = ${survived};
    for (const name of ['openSync', 'writeFileSync', 'writeSync', 'fsyncSync', 'closeSync', 'renameSync']) {
      const real = fs[name];
      fs[name] = (...args) => {
        if (left-- > 0) return real(...args);
        if (name.startsWith('write')) real(args[0], args[1].slice(0, args[1].length / 2));
        process.kill(process.pid, 'SIGKILL');
      };
    }
    syncBuiltinESMExports();
    writeFileDurably(path, data);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, path, data], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code, signal] = (await once(child, 'exit', { signal: AbortSignal.timeout(10_000) })) as [number | null, string | null];
  if (signal !== 'SIGKILL' && code !== 0) throw new Error(`the writer ended with ${code ?? signal}`);
  return signal === 'SIGKILL';
}
