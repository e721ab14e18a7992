import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { describeWithVulkan, softwareVulkan } from '../../../../test/support/needs.js';
import { tinyPackage, type TinyPackage } from '../../../../test/support/tiny-package.js';
import { createEngineHost, type EngineHostOptions } from './child-engine-host.js';
import type { RunningEngine } from './engine-host.js';

const MIB = 2 ** 20;
const entry = new URL('../../dist/engine/engine-process.js', import.meta.url);
const promptIds = [2, 10, 20, 30];

let tiny: TinyPackage;
let engine: RunningEngine | undefined;
const environment = { ...process.env };
beforeAll(async () => {
  tiny = await tinyPackage();
}, 60_000);
afterEach(async () => {
  await engine?.stop();
  process.env = { ...environment };
});
afterAll(() => tiny.remove());

async function start(options: Partial<EngineHostOptions>, env: NodeJS.ProcessEnv = {}): Promise<RunningEngine> {
  // The engine process gets the agent's environment.
  process.env = { ...environment, ...env };
  const host = createEngineHost({ modelMemoryBytes: 0, availableMemoryBytes: () => 4096 * MIB, entry, ...options });
  const spec = { modelVersionId: 'v1', modelName: 'tiny', sliceId: 'narrow', manifestPath: tiny.manifestPath, storeDir: tiny.dir, contextTokens: 64 };
  return (engine = await host.start(spec));
}

describeWithVulkan('an engine process on a software graphics driver', () => {
  it('answers like one on the CPU, and each says what computes it and how many bytes lie with the accelerator', async () => {
    const onCpu = await start({});
    const answer = (await onCpu.golden(promptIds, 4)).tokenIds;
    expect(onCpu.status()).toMatchObject({ executionProviders: ['cpu'], acceleratorBytes: 0 });
    await onCpu.stop();

    const onGpu = await start({ provider: 'webgpu' }, softwareVulkan);
    expect((await onGpu.golden(promptIds, 4)).tokenIds).toEqual(answer);
    const { executionProviders, acceleratorBytes } = onGpu.status();
    expect(executionProviders).toEqual(['webgpu', 'cpu']);
    expect(acceleratorBytes).toBeGreaterThan(500_000);
  }, 120_000);
});

describe('an engine process that is to use an accelerator', () => {
  it('does not start where the machine has none, and says so', async () => {
    await expect(start({ provider: 'webgpu' }, { VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: '/nowhere.json' })).rejects.toThrow(
      /slice narrow of tiny did not start: the execution provider webgpu is not available here: no graphics adapter/,
    );
  });

  it('does not start a slice for which too little memory is granted, and says how much it takes', async () => {
    await expect(start({ provider: 'webgpu', acceleratorMemoryBytes: 100_000 })).rejects.toThrow(
      /slice narrow of tiny did not start: no room on webgpu for narrow: weights .* MB .* 0\.10 MB are granted/,
    );
  });
});
