import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bandEdgesOf, planesOf, publishedShapes, publishedSlices, type ModelConfig } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { planPackage } from './package-plan.js';
import { synthPackage } from './synth.js';
import { withFolder } from './testing-fixture.js';

const small: ModelConfig = {
  ...publishedShapes.e2b,
  vocabSize: 300,
  vocabSizePerLayerInput: 280,
  hiddenSize: 72,
  hiddenSizePerLayerInput: 32,
  intermediateSize: Array<number>(30).fill(128),
  headDim: 16,
  laurelRank: 16,
};

describe('the plan of a package', () => {
  it.each([
    ['fp32', null],
    ['int8', 32],
    ['int4', 64],
  ] as const)('knows the bytes of every chunk before one is written, in %s', (kind, block) =>
    withFolder(async (dir) => {
      const out = join(dir, 'package');
      const manifest = await synthPackage({ shape: small, out, precision: kind, ...(block && { block }) });
      const { slices } = manifest;
      const plan = planPackage(small, { precision: { kind, block }, bandEdges: bandEdgesOf(small, slices), planes: planesOf(small, slices) });
      expect(plan.bytes).toBe(manifest.chunks.reduce((sum, { bytes }) => sum + bytes, 0));
      for (const { id, bytes } of manifest.chunks) expect(await readFile(join(out, 'chunks', id))).toHaveLength(bytes);
    }),
  );

  it("of E4B in int4 has Google's published slices in two planes and 3.8 GB", () => {
    const config = publishedShapes.e4b;
    const plan = planPackage(config, {
      precision: { kind: 'int4', block: 64 },
      bandEdges: bandEdgesOf(config, publishedSlices),
      planes: planesOf(config, publishedSlices),
    });
    expect(plan.planes.map(({ layers }) => layers.length).sort()).toEqual([30, 5]);
    expect(plan.bytes / 1e9).toBeCloseTo(3.85, 1);
  });
});
