import { describe, expect, it } from '@jest/globals';
import type { Chunk, Part, Precision } from './manifest.js';
import { missingChunks, theoreticalBytes } from './delta.js';
import { publishedShapes } from './published-shapes.js';
import { publishedChain, publishedSlices } from './published-slices.js';
import { nests } from './slice-math.js';

const { e4b } = publishedShapes;
const INT4: Precision = { kind: 'int4', block: 32 };
const slice = (id: string) => publishedSlices.find((row) => row.id === id)!;
const chunk = (id: string, part: Part): Chunk => ({ id: id.padStart(64, '0'), bytes: 10, part, tensors: [] });

describe('what a step along the published chain takes', () => {
  it('only ever adds: each slice lies within the next', () => {
    expect(publishedChain).toHaveLength(8);
    for (let i = 1; i < publishedChain.length; i++) {
      expect(nests(publishedChain[i - 1]!, publishedChain[i]!)).toBe(true);
      expect(nests(publishedChain[i]!, publishedChain[i - 1]!)).toBe(false);
    }
  });

  it('is one layer’s three bands from E2B to its neighbour', () => {
    const step = theoreticalBytes(e4b, INT4, slice('e1.96b-layer')) - theoreticalBytes(e4b, INT4, slice('e2b'));
    expect(step).toBe(3 * 2048 * 8192 * (0.5 + 4 / 32));
  });

  it('is a third of the whole from E2B to E4B', () => {
    const [small, large] = [theoreticalBytes(e4b, INT4, slice('e2b')), theoreticalBytes(e4b, INT4, slice('e4b'))];
    expect((large - small) / (large + 2048 * 262_400 * (0.5 + 4 / 32))).toBeLessThan(0.36);
  });
});

describe('what a device lacks', () => {
  const config = { ...e4b, numHiddenLayers: 2, intermediateSize: [20, 20] };
  const band = (id: string, layer: number, from: number) => chunk(id, { kind: 'band', layer, from, to: from + 10 });
  const v1 = { config, chunks: [chunk('c', { kind: 'core' }), band('a', 0, 0), band('b', 0, 10), band('d', 1, 0), band('e', 1, 10)] };
  const v2 = { config, chunks: [chunk('c', { kind: 'core' }), band('a', 0, 0), band('f', 0, 10), band('d', 1, 0), band('d', 1, 10)] };
  const narrow = { ffn: [10, 10], skip: [] };
  const wide = { ffn: [20, 20], skip: [] };
  const ids = (chunks: Chunk[]) => chunks.map(({ id }) => id.replace(/^0+/, ''));

  it('is everything at first, the missing bands upwards, and nothing downwards', () => {
    expect(ids(missingChunks({ manifest: v1, slice: narrow }))).toEqual(['c', 'a', 'd']);
    expect(ids(missingChunks({ manifest: v1, slice: wide }, { manifest: v1, slice: narrow }))).toEqual(['b', 'e']);
    expect(missingChunks({ manifest: v1, slice: narrow }, { manifest: v1, slice: wide })).toEqual([]);
  });

  it('is only what changed between two versions, and equal bytes once', () => {
    expect(ids(missingChunks({ manifest: v2, slice: wide }, { manifest: v1, slice: wide }))).toEqual(['f']);
    expect(ids(missingChunks({ manifest: v2, slice: wide }))).toEqual(['c', 'a', 'f', 'd']);
  });
});
