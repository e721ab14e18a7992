import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { nanoPackage, repositoryRoot, StandaloneAgent } from '@matfleet/harness';
import { transformFile } from '@swc/core';
import { itWithGrpcio, python } from '../support/python.js';

const run = promisify(execFile);
const examples = join(repositoryRoot, 'examples');
const command = 'Freezer room to -22 please';
const call = '{"name":"set_temperature","parameters":{"zone":"freezer room","celsius":-22}}';

let agent: StandaloneAgent;
let work: string;

beforeAll(async () => {
  agent = await StandaloneAgent.start({
    ...{ model: await nanoPackage('int8'), modelName: 'nano', sliceId: 's-512', contextTokens: 128 },
    args: ['--tool-prompt', 'none'],
  });
  // Inside the repository, so that its packages are found.
  work = await mkdtemp(join(repositoryRoot, '.data/examples-'));
}, 120_000);

afterAll(async () => {
  await agent.stop();
  await rm(work, { recursive: true, force: true });
});

describe('the examples', () => {
  it('work in TypeScript, with the official client', async () => {
    const { code } = await transformFile(join(examples, 'typescript/control.ts'), { jsc: { target: 'es2022', parser: { syntax: 'typescript' } } });
    await writeFile(join(work, 'control.mjs'), code);
    const { stdout } = await run(process.execPath, [join(work, 'control.mjs'), command], {
      env: { ...process.env, MATFLEET_URL: agent.url },
      timeout: 20_000,
    });
    expect(stdout).toMatch(/^freezer room goes to -22 °C\n\(kiosk, slice s-512, first token after [\d.]+ ms\)\n$/);
  });

  it('work with curl alone', async () => {
    const { stdout } = await run('bash', [join(examples, 'curl.sh')], { env: { ...process.env, MATFLEET_URL: agent.url }, timeout: 20_000 });
    expect(stdout).toContain('"object":"list"');
    expect(stdout).toMatch(/x-matfleet-slice: s-512/i);
    expect(stdout).toContain(JSON.stringify(call));
    const lines = stdout
      .trimEnd()
      .split('\n')
      .filter((line) => line.includes('"created_at"'));
    const text = lines.map((line) => (JSON.parse(line) as { response: string }).response).join('');
    expect(JSON.parse(text)).toEqual({ zone: expect.any(String), on: expect.any(Boolean) });
  });

  itWithGrpcio('work in Python, from the .proto alone', async () => {
    const { stdout } = await run(python, [join(examples, 'python/ask.py'), agent.socket, command], { timeout: 30_000 });
    expect(stdout.split('\n')[0]).toBe(call);
    expect(stdout).toMatch(/\(kiosk, slice s-512, first token after [\d.]+ ms\)/);
    await expect(run(python, [join(examples, 'python/ask.py'), agent.socket, 'lights '.repeat(300)], { timeout: 30_000 })).rejects.toMatchObject({
      stderr: expect.stringContaining('INVALID_ARGUMENT: the prompt has'),
    });
  });
});
