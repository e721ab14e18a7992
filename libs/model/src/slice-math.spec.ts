import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { ModelConfig } from './model-config.js';
import { footprint, kvBytes } from './footprint.js';
import { frontier, qualityOf } from './frontier.js';
import type { Chunk } from './manifest.js';
import { bandEdges, chunksOf, sliceById, versionId } from './package.js';
import { bandEdgesOf, fullSlice, kvDonors, nests, planesOf, sliceWidths, validateSlice } from './slice-math.js';
import type { Slice } from './slice.js';

const LAYERS = 10;
const config: ModelConfig = {
  vocabSize: 96,
  vocabSizePerLayerInput: 80,
  hiddenSize: 16,
  hiddenSizePerLayerInput: 4,
  intermediateSize: Array<number>(LAYERS).fill(64),
  numHiddenLayers: LAYERS,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 8,
  layerTypes: Array.from({ length: LAYERS }, (_, i) => ((i + 1) % 5 === 0 ? 'full_attention' : 'sliding_attention')),
  slidingWindow: 8,
  numKvSharedLayers: 5,
  laurelRank: 4,
  altupNumInputs: 4,
  activationSparsityPattern: Array<number>(LAYERS).fill(0),
  ropeThetaFull: 1e6,
  ropeThetaSliding: 1e4,
  rmsNormEps: 1e-6,
  finalLogitSoftcapping: 30,
  altupCoefClip: 120,
  maxPositionEmbeddings: 64,
  padTokenId: 0,
  bosTokenId: 2,
  eosTokenIds: [1],
};
const EDGES = [16, 32, 64];
const edges = Array.from({ length: LAYERS }, () => EDGES);
const skippable = Array.from({ length: LAYERS }, (_, l) => l).filter((l) => !kvDonors(config).includes(l));

const anySlice = (): fc.Arbitrary<Slice> =>
  fc
    .record({
      widths: fc.array(fc.constantFrom(...EDGES), { minLength: LAYERS, maxLength: LAYERS }),
      skip: fc.subarray(skippable),
      value: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
    })
    .map(({ widths, skip, value }) => ({
      id: `${widths.join('.')}-${skip.join('.')}`,
      name: 'any',
      ffn: widths.filter((_, l) => !skip.includes(l)),
      skip,
      ...(value === null ? {} : { quality: { value, samples: 100, stderr: 0.01 } }),
    }));

function packageOf(slices: readonly Slice[]): { config: ModelConfig; chunks: Chunk[] } {
  let next = 0;
  const chunk = (part: Chunk['part'], tensor = 'x'): Chunk => {
    const bytes = 100 + next;
    return {
      id: (next++).toString(16).padStart(64, '0'),
      bytes,
      part,
      tensors: [{ name: tensor, dtype: 'uint8', shape: [bytes], offset: 0, bytes }],
    };
  };
  const chunks = [chunk({ kind: 'core' }, 'embed_tokens.weight'), chunk({ kind: 'core' }), chunk({ kind: 'tokenizer', file: 'tokenizer.json' })];
  bandEdgesOf(config, slices).forEach((list, layer) => {
    chunks.push(chunk({ kind: 'layer', layer }));
    list.forEach((to, i) => chunks.push(chunk({ kind: 'band', layer, from: list[i - 1] ?? 0, to })));
  });
  for (const layers of planesOf(config, slices)) chunks.push(chunk({ kind: 'plane', layers, fromRow: 0, toRow: 80 }));
  return { config, chunks };
}

describe('slice arithmetic', () => {
  it('gives each kept layer its width in original numbering, 0 to skipped ones', () => {
    fc.assert(
      fc.property(anySlice(), (slice) => {
        const widths = sliceWidths(config, slice);
        expect(widths).toHaveLength(LAYERS);
        expect(widths.filter((w) => w > 0)).toEqual(slice.ffn);
        expect(widths.flatMap((w, l) => (w === 0 ? [l] : []))).toEqual(slice.skip);
        validateSlice(config, slice, edges);
      }),
    );
  });

  it('nests exactly when every chunk of the smaller is one of the larger', () => {
    fc.assert(
      fc.property(anySlice(), anySlice(), (a, b) => {
        const whole = packageOf([a, b, fullSlice(config)]);
        const inB = new Set(chunksOf(whole, b).map((c) => c.id));
        expect(nests(a, b)).toBe(chunksOf(whole, a).every((c) => inB.has(c.id)));
      }),
    );
  });

  it('refuses to skip a layer whose K/V others read, naming the readers', () => {
    expect(kvDonors(config)).toEqual([3, 4]);
    expect(() => validateSlice(config, { ffn: Array(9).fill(64), skip: [3] }, edges)).toThrow(
      'layer 3 cannot be skipped: layers 5, 6, 7, 8 read its K/V',
    );
    expect(() => validateSlice(config, { ffn: Array(9).fill(64), skip: [4] }, edges)).toThrow('layers 9 read');
  });

  it('refuses a width off the band edges, a wrong number of widths and a layer that does not exist, with the numbers', () => {
    expect(() => validateSlice(config, { ffn: [64, 48, ...Array<number>(8).fill(64)], skip: [] }, edges)).toThrow(
      'FFN width 48 of layer 1 is not on a band edge: 16, 32, 64',
    );
    expect(() => sliceWidths(config, { ffn: [64], skip: [] })).toThrow('1 FFN widths for 10 kept layers');
    expect(() => sliceWidths(config, { ffn: Array(9).fill(64), skip: [10] })).toThrow('skipped layer 10 does not exist: the model has 10 layers');
    expect(() => bandEdgesOf(config, [{ ffn: Array(10).fill(128), skip: [] }])).toThrow("FFN width 128 of layer 0 exceeds the model's 64");
  });

  it('reads the band edges back from a package', () => {
    fc.assert(fc.property(anySlice(), (slice) => expect(bandEdges(packageOf([slice]))).toEqual(bandEdgesOf(config, [slice]))));
  });
});

describe('footprint', () => {
  it('never shrinks when the slice or the context grows, and adds up', () => {
    fc.assert(
      fc.property(anySlice(), anySlice(), fc.integer({ min: 1, max: 63 }), (a, b, context) => {
        const whole = packageOf([a, b, fullSlice(config)]);
        const of = (s: Slice, c: number) => footprint(whole, s, c);
        const print = of(a, context);
        expect(print.totalBytes).toBe(print.weightsBytes + print.headBytes + print.kvBytes + print.activationBytes + print.hotRowBytes);
        expect(of(a, context + 1).totalBytes).toBeGreaterThanOrEqual(print.totalBytes);
        expect(of(fullSlice(config), context).totalBytes).toBeGreaterThanOrEqual(print.totalBytes);
        expect(print.downloadBytes).toBe(chunksOf(whole, a).reduce((sum, c) => sum + c.bytes, 0));
      }),
    );
  });

  it('counts K/V of owning layers only, sliding ones up to a window and a chunk of 32', () => {
    const perPosition = 2 * 2 * 8 * 4;
    expect(kvBytes(config, fullSlice(config), 40)).toBe((4 * (7 + 32) + 40) * perPosition);
    expect(kvBytes(config, { ffn: Array(9).fill(64), skip: [0] }, 40)).toBe((3 * (7 + 32) + 40) * perPosition);
  });
});

describe('frontier', () => {
  it('keeps rows that rise in size and quality and dominates every row it drops', () => {
    fc.assert(
      fc.property(fc.array(anySlice(), { minLength: 1, maxLength: 12 }), (slices) => {
        const sizeOf = (s: Slice) => s.ffn.reduce((a, b) => a + b, 0);
        const kept = frontier(slices, { sizeOf });
        for (let i = 1; i < kept.length && kept[0]!.quality; i++) {
          expect(sizeOf(kept[i]!)).toBeGreaterThan(sizeOf(kept[i - 1]!));
          expect(kept[i]!.quality!.value).toBeGreaterThan(kept[i - 1]!.quality!.value);
        }
        for (const slice of slices)
          if (slice.quality) expect(kept.some((k) => sizeOf(k) <= sizeOf(slice) && k.quality!.value >= slice.quality!.value)).toBe(true);
      }),
    );
  });

  it('answers for a task where that was measured, else overall', () => {
    const quality = (value: number) => ({ value, samples: 50, stderr: 0.02 });
    const small: Slice = { id: 's', name: 's', ffn: [16], skip: [], quality: quality(0.8), tasks: { locks: quality(0.99) } };
    const large: Slice = { id: 'l', name: 'l', ffn: [64], skip: [], quality: quality(0.9), tasks: { locks: quality(0.97) } };
    expect(qualityOf(small, 'locks')?.value).toBe(0.99);
    expect(qualityOf(small, 'lights')?.value).toBe(0.8);
    expect(frontier([large, small]).map((s) => s.id)).toEqual(['s', 'l']);
    expect(frontier([large, small], { task: 'locks' }).map((s) => s.id)).toEqual(['s']);
  });
});

describe('package helpers', () => {
  it('names the slices there are when one is asked for that is not', () => {
    expect(() => sliceById({ name: 'nano', slices: [fullSlice(config)] }, 'tiny')).toThrow('model nano has no slice "tiny"; it has full');
  });

  it('identifies a version by the SHA-256 of the exact bytes', () => {
    expect(versionId(new TextEncoder().encode('abc'))).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });
});
