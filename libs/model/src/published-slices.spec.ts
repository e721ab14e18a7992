import { describe, expect, it } from '@jest/globals';
import { frontier } from './frontier.js';
import { publishedShapes } from './published-shapes.js';
import { effectiveParameters, publishedBillions, publishedSlices, publishedSlicesFor } from './published-slices.js';
import { bandEdgesOf, planesOf, validateSlice } from './slice-math.js';

const { e4b: E4B, e2b: E2B } = publishedShapes;
const FRONTIER = [1.91, 1.96, 2.49, 2.54, 2.69, 2.98, 3.18, 3.39, 3.59];

describe('the published slices of Gemma 3n E4B', () => {
  it('counts exactly the parameters that Google prints for E2B and publishes for E4B', () => {
    const e2b = publishedSlices.find((s) => s.id === 'e2b')!;
    expect(effectiveParameters(E4B, e2b)).toBe(1_905_495_648);
    expect(effectiveParameters(E4B, publishedSlices[0]!)).toBe(3_980_491_248);
  });

  it('agrees with all 16 published sizes within 0.02 billion', () => {
    expect(publishedSlices).toHaveLength(16);
    for (const slice of publishedSlices)
      expect(Math.abs(effectiveParameters(E4B, slice) / 1e9 - publishedBillions.get(slice.id)!)).toBeLessThan(0.02);
  });

  it('prunes to the nine undominated rows, E4B itself not among them, by real size and by the default measure', () => {
    const billions = (options?: Parameters<typeof frontier>[1]) => frontier(publishedSlices, options).map((s) => publishedBillions.get(s.id));
    expect(billions({ sizeOf: (slice) => effectiveParameters(E4B, slice) })).toEqual(FRONTIER);
    expect(billions()).toEqual(FRONTIER);
  });

  it('can all be cut from bands at 8192 and two planes', () => {
    const edges = bandEdgesOf(E4B, publishedSlices);
    expect(edges).toEqual(Array(35).fill([8192, 16384]));
    for (const slice of publishedSlices) validateSlice(E4B, slice, edges);
    expect(planesOf(E4B, publishedSlices).map((plane) => plane.length)).toEqual([30, 5]);
  });

  it('are recognised by shape: the table for E4B, its own row for E2B, nothing for others', () => {
    expect(publishedSlicesFor(E4B)).toHaveLength(16);
    const [row] = publishedSlicesFor(E2B);
    expect(row).toMatchObject({ id: 'e2b', skip: [], quality: { value: 0.509 } });
    expect(row!.ffn).toHaveLength(30);
    expect(publishedSlicesFor({ ...E4B, hiddenSize: 1024 })).toEqual([]);
  });
});
