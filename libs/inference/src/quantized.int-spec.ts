import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { Decoder, type DecoderOptions } from './decoder.js';
import { GraphBuilder } from './graph-builder.js';
import { importCheckpoint } from './import.js';
import { createSession, float32, floatsOf } from './onnx.js';
import { dequantize, quantize, type Bits } from './quantize.js';
import { largestDifference, tinyCheckpoint, withFolder } from './testing-fixture.js';

const LAYERS = 20;
const full = { id: 'full', name: 'Full', ffn: Array<number>(LAYERS).fill(64), skip: [] };
const mixed = { id: 'mixed', name: 'Mixed', ffn: [32, 64, ...Array<number>(13).fill(32)], skip: [10, 11, 12, 13, 14] };
const ids = [2, 17, 230, 99, 5, 260, 44, 45, 3, 120, 77];

describe.each([
  ['int8', 64],
  ['int8', 16],
  ['int4', 32],
  ['int4', 128],
] as const)('a package in %s, block %i', (precision, block) => {
  it('computes what a float32 graph computes over its own dequantised weights, joined or mapped from its chunks', async () => {
    await withFolder(async (dir) => {
      const out = join(dir, 'package');
      const manifest = await importCheckpoint({ source: tinyCheckpoint, out, precision, block, slices: [full, mixed] });
      for (const slice of [full, mixed]) {
        const logits = async (options: DecoderOptions): Promise<Float32Array[]> => {
          const decoder = await Decoder.open(manifest, out, slice, options);
          try {
            return (await decoder.forward(ids, decoder.newCache(ids.length, ids.length), ids.length)).map((row) => row.slice());
          } finally {
            await decoder.close();
          }
        };
        const want = await logits({ dequantized: true });
        expect(largestDifference(await logits({}), want)).toBeLessThan(2e-3);
        expect(largestDifference(await logits({ mappedFromBytes: 0, activations: 'float32' }), want)).toBeLessThan(2e-3);
      }
      expect(readdirSync(out).sort()).toEqual(['chunks', 'manifest.json']);
    });
  });

  it('reports the block of every tensor: no more than asked for, its band or its input', async () => {
    await withFolder(async (dir) => {
      const manifest = await importCheckpoint({ source: tinyCheckpoint, out: join(dir, 'package'), precision, block, slices: [full, mixed] });
      const blocks = new Map(manifest.chunks.flatMap((c) => c.tensors.map((t) => [t.name, t.block] as const)));
      expect(blocks.get('layers.0.self_attn.q_proj.weight')).toBe(Math.min(block, 32));
      expect(blocks.get('layers.0.self_attn.o_proj.weight')).toBe(Math.min(block, 128));
      expect(blocks.get('layers.0.mlp.down_proj.weight@32')).toBe(Math.min(block, 32));
      // LAuReL's rank of 8 is below the smallest block of the product, so that matrix stays float32.
      expect(blocks.get('layers.0.laurel.linear_right.weight')).toBeUndefined();
    });
  });
});

it.each([4, 8] as const)('the fast %i-bit product, which rounds activations too, stays within 0.2 % of the size of its terms', async (bits: Bits) => {
  const [N, K, block] = [64, 256, 64];
  const wave = (length: number, step: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * step));
  const [matrix, x] = [wave(N * K, 1.7), wave(K, 0.37)];
  const packed = quantize(matrix, N, K, bits, block);
  const weights = dequantize(packed, N, K, bits, block);
  const g = new GraphBuilder();
  const inputs = [
    g.input('x', 'float32', [1, K]),
    g.bytesConstant('w', [N, K / block, (block * bits) / 8], packed.values),
    g.floats('s', [packed.scales.length], packed.scales),
  ];
  g.output('y', g.contrib('MatMulNBits', inputs, { K, N, bits, block_size: block, accuracy_level: 4 }), 'float32', [1, N]);
  const session = await createSession(g.toBytes(), { threads: 1 });
  const got = floatsOf((await session.run({ x: float32(x, [1, K]) }))['y']!);
  await session.close();
  const want = Array.from({ length: N }, (_, n) => x.reduce((sum, value, k) => sum + value * weights[n * K + k]!, 0));
  const size = x.reduce((sum, value, k) => sum + Math.abs(value * weights[k]!), 0);
  expect(largestDifference([got], [want])).toBeLessThan(0.002 * size);
});
