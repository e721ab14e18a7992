import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { footprint, sliceById, type Manifest } from '@matfleet/model';
import { describeWithVulkan, softwareVulkan } from '../../../test/support/needs.js';
import { importCheckpoint } from './import.js';
import { openEngine } from './engine.js';
import { readSliceTable } from './slice-table.js';
import { makeFolder } from './testing-fixture.js';
import type { AcceleratorReport, AcceleratorTask, Passes } from './testing-webgpu-process.js';

const nano = fileURLToPath(new URL('../../../models/nano/', import.meta.url));
const program = fileURLToPath(new URL('../dist/testing-webgpu-process.js', import.meta.url));
const sliceIds = ['s-32', 's-32-L6', 's-512'];
/** Far above rounding, far below what a wrong kernel does: logits reach 20. */
const TOLERANCE = 1e-3;

let packageDir: string;
let manifest: Manifest;
let remove: () => Promise<void>;
beforeAll(async () => {
  const folder = await makeFolder();
  remove = folder.remove;
  packageDir = join(folder.dir, 'package');
  const { slices } = await readSliceTable(join(nano, 'slices.json'));
  const wanted = slices.filter(({ id }) => sliceIds.includes(id));
  manifest = await importCheckpoint({ source: nano, out: packageDir, precision: 'int8', slices: wanted, golden: false });
});
afterAll(() => remove());

async function onAccelerator(task: AcceleratorTask, env: NodeJS.ProcessEnv): Promise<AcceleratorReport> {
  const options = { env: { ...process.env, ...env }, timeout: 400_000 };
  const { stdout } = await promisify(execFile)(process.execPath, [program, JSON.stringify(task)], options);
  return JSON.parse(stdout) as AcceleratorReport;
}

describeWithVulkan('nano on WebGPU, with a software Vulkan driver', () => {
  /** nano's window holds 64 positions, its cache 79: the fifth pass of 16 moves them. One slice more than may be open: s-32 closes on the way. */
  const sequences: Passes[] = [
    [['s-512', 3, 3]],
    [
      ['s-32-L6', 16, 1],
      ['s-32-L6', 16, 1],
      ['s-32-L6', 8, 8],
    ],
    [...Array.from({ length: 5 }, () => ['s-32', 16, 1] as const), ['s-32', 8, 8], ['s-32-L6', 1, 1], ['s-512', 1, 1], ['s-32-L6', 1, 1]],
  ];
  const attention = [
    { queries: 16, context: 20, window: -1, shares: false },
    { queries: 1, context: 64, window: 64, shares: true },
  ];
  let report: AcceleratorReport;
  beforeAll(async () => {
    report = await onAccelerator({ packageDir, provider: 'webgpu', sequences, attention }, softwareVulkan!);
  }, 400_000);

  it('says what the CPU says: past the window and through changes of slice, for a prompt of 40 tokens, and for the whole model', () => {
    expect(report.largestLogit).toBeGreaterThan(10);
    expect(report.differences).toHaveLength(sequences.length);
    for (const difference of report.differences) expect(difference).toBeLessThan(TOLERANCE);
  });

  it('keeps to short passes where a check of the attention kernel finds it wrong in long ones, as it is on this driver', () => {
    expect(report.passTokens).toBe(16);
  });

  it('leaves keys and values there between two passes', () => {
    expect(report.kept).toBe(true);
  });

  it.each(sliceIds)('computes every product, norm and attention of slice %s there, and on the CPU only the angles of its positions', (sliceId) => {
    const { CPU: cpu, WebGpu: gpu } = report.placements[sliceId]!;
    const { ffn } = sliceById(manifest, sliceId);
    expect(gpu!.operators['GroupQueryAttention']).toBe(ffn.length);
    expect(gpu!.operators['MatMulNBits']).toBeGreaterThan(7 * ffn.length);
    expect(gpu!.operators).toMatchObject({ MatMul: expect.any(Number), SkipSimplifiedLayerNormalization: ffn.length, LayerNormalization: 2 });
    expect(['Cast', 'Cos', 'Sin']).toEqual(expect.arrayContaining(Object.keys(cpu!.operators)));
    expect(cpu!.constantBytes).toBe(0);
  });

  it.each(sliceIds)('holds the weights of slice %s there and nothing of its per-layer embeddings', (sliceId) => {
    const { weightsBytes, headBytes, pleBytes } = footprint(manifest, sliceById(manifest, sliceId), 128);
    const bytes = report.acceleratorBytes[sliceId]!;
    expect(bytes).toBeGreaterThan(weightsBytes + headBytes);
    // Norms by head and other small constants are repeated in the graph.
    expect(bytes - weightsBytes - headBytes).toBeLessThan(pleBytes / 4);
  });

  it('has an attention kernel that is right in the cases that the graph leaves to it: short passes, and a shared window that is not full', () => {
    expect(report.attention).toHaveLength(attention.length);
    for (const difference of report.attention) expect(difference).toBeLessThan(TOLERANCE);
  });
});

describe('an accelerator', () => {
  const open = (provider: 'webgpu' | 'cuda', acceleratorMemoryBytes?: number) =>
    openEngine({
      manifest,
      storeDir: packageDir,
      sliceId: 's-512',
      otherSlices: ['s-32'],
      contextTokens: 128,
      provider,
      ...(acceleratorMemoryBytes !== undefined && { acceleratorMemoryBytes }),
    });

  it('is refused by name, with what is missing and how to get it, where the machine has none', async () => {
    const task = { packageDir, provider: 'webgpu' as const, sequences: [[['s-32', 1, 1] as const]], attention: [] };
    await expect(onAccelerator(task, { VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: '/nowhere.json' })).rejects.toThrow(
      /execution provider webgpu is not available here: no graphics adapter .*libvulkan/,
    );
    // A machine that has CUDA's libraries opens it.
    const outcome = await open('cuda').then(
      (engine) => engine.close(),
      (error: Error) => error.message,
    );
    if (outcome !== undefined)
      expect(outcome).toMatch(/execution provider cuda is not available here: its library does not load.*npm rebuild onnxruntime-node/);
  });

  it('refuses slices that need more than is granted, with the numbers, before anything is loaded', async () => {
    await expect(open('webgpu', 3_000_000)).rejects.toThrow(
      /^no room on webgpu for s-512, s-32: weights 3\.\d\d MB and a pass 0\.\d\d MB make 4\.\d\d MB, 3\.00 MB are granted; take a smaller slice/,
    );
  });
});
