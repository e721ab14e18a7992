import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createSampler } from './sampler.js';

// Ids 0 <pad>, 1 <bos>; ids from 10 on are soft tokens.
const vocab = { vocabSizePerLayerInput: 10, padTokenId: 0, bosTokenId: 1 };
const row = (...logits: number[]): Float32Array => Float32Array.from(logits);
const frequencies = (sampler: (logits: Float32Array) => number, logits: Float32Array, draws: number): number[] => {
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[sampler(logits)]!++;
  return counts.map((count) => count / draws);
};

describe('greedy', () => {
  it('takes the highest logit, the lowest id among equals', () => {
    expect(createSampler(undefined, vocab)(row(0, 0, 1, 3, 3, 2))).toBe(3);
  });

  it('is what temperature 0 means', () => {
    expect(createSampler({ temperature: 0, topK: 5 }, vocab)(row(0, 0, 1, 3, 4, 2))).toBe(4);
  });

  it('never chooses <pad>, <bos>, a soft token or NaN', () => {
    expect(createSampler(undefined, vocab)(row(9, 9, NaN, 1, 2, 1, 1, 1, 1, 1, 9, 9))).toBe(4);
  });

  it('says so when no logit is a number', () => {
    expect(() => createSampler(undefined, vocab)(row(1, 1, NaN, NaN))).toThrow('none of 4 logits is a number');
  });
});

describe('sampling', () => {
  it('draws each token as often as softmax at the temperature says, within 1.5 points at 20,000 draws', () => {
    const logits = row(50, 50, 1, 0.5, -1, 2, 0, 0.2, -2, 1.5, 99);
    const temperature = 0.7;
    const weights = [...logits].map((logit, id) => (id < 2 || id > 9 ? 0 : Math.exp(logit / temperature)));
    const sum = weights.reduce((a, b) => a + b);
    const seen = frequencies(createSampler({ temperature, topK: 0, topP: 1, seed: 7 }, vocab), logits, 20_000);
    weights.forEach((weight, id) => expect(Math.abs(seen[id]! - weight / sum)).toBeLessThan(0.015));
  });

  it('keeps the k best only', () => {
    const seen = frequencies(createSampler({ topK: 2, topP: 1, seed: 3 }, vocab), row(9, 9, 1, 4, 2, 3.9, 1), 2000);
    expect(seen.map((share) => share > 0)).toEqual([false, false, false, true, false, true, false]);
  });

  it('keeps the shortest prefix that reaches p, at least one token', () => {
    const logits = row(0, 0, Math.log(0.5), Math.log(0.3), Math.log(0.15), Math.log(0.05));
    const kept = (topP: number) =>
      frequencies(createSampler({ topK: 0, topP, seed: 5 }, vocab), logits, 3000).flatMap((share, id) => (share > 0 ? [id] : []));
    expect(kept(0.01)).toEqual([2]);
    expect(kept(0.79)).toEqual([2, 3]);
    expect(kept(0.81)).toEqual([2, 3, 4]);
    expect(kept(1)).toEqual([2, 3, 4, 5]);
  });

  it('uses Gemma 3n defaults for what is left out: top-k 64', () => {
    const wide = { vocabSizePerLayerInput: 300, padTokenId: 0, bosTokenId: 1 };
    const logits = Float32Array.from({ length: 300 }, () => 0);
    const seen = frequencies(createSampler({ topP: 1, seed: 1 }, wide), logits, 5000);
    expect(seen.flatMap((share, id) => (share > 0 ? [id] : []))).toEqual(Array.from({ length: 64 }, (_, i) => i + 2));
  });

  it('repeats itself with the same seed and differs with another', () => {
    const logits = row(0, 0, 1, 1, 1, 1, 1, 1);
    const take = (seed: number) => {
      const sampler = createSampler({ seed }, vocab);
      return Array.from({ length: 40 }, () => sampler(logits)).join();
    };
    expect(take(42)).toBe(take(42));
    expect(take(42)).not.toBe(take(43));
  });

  it('chooses only allowed ids among the k best, whatever the logits, and leaves the row alone', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -30, max: 30 }), { minLength: 12, maxLength: 40 }),
        fc.integer({ min: 0, max: 6 }),
        fc.float({ min: Math.fround(0.01), max: 1, noNaN: true }),
        fc.integer(),
        (values, topK, topP, seed) => {
          const logits = Float32Array.from(values);
          const chosen = createSampler({ temperature: 1.3, topK, topP, seed }, vocab)(logits);
          const better = values.filter((_, id) => id > 1 && id < 10 && logits[id]! > logits[chosen]!).length;
          expect(chosen).toBeGreaterThan(1);
          expect(chosen).toBeLessThan(10);
          if (topK > 0) expect(better).toBeLessThan(topK);
          expect(logits).toEqual(Float32Array.from(values));
        },
      ),
    );
  });

  it.each([
    [{ temperature: -1 }, 'temperature is -1'],
    [{ temperature: NaN }, 'temperature is NaN'],
    [{ topK: 1.5 }, 'topK is 1.5'],
    [{ topP: 0 }, 'topP is 0'],
    [{ topP: 1.1 }, 'topP is 1.1'],
  ])('refuses %j', (sampling, message) => {
    expect(() => createSampler(sampling, vocab)).toThrow(message);
  });
});

describe('a choice among allowed tokens', () => {
  it('is the one that a mask over all logits gives, however few of the best are allowed', () => {
    const vocab = { vocabSizePerLayerInput: 400, padTokenId: 0, bosTokenId: 2 };
    const logit = fc.float({ noNaN: true, min: -20, max: 20 });
    const setting = fc.record({
      temperature: fc.constantFrom(0, 0.7, 2),
      topK: fc.constantFrom(0, 1, 8, 64),
      topP: fc.constantFrom(0.5, 1),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(
        fc.array(logit, { minLength: 400, maxLength: 400 }),
        fc.uniqueArray(fc.integer({ min: 3, max: 399 }), { minLength: 1 }),
        setting,
        (values, ids, sampling) => {
          const logits = Float32Array.from(values);
          const mask = new Uint32Array(13);
          for (const id of ids) mask[id >>> 5]! |= 1 << (id & 31);
          const chosen = createSampler(sampling, vocab)(logits, { allows: (id) => ids.includes(id), mask: () => mask });
          const masked = logits.map((value, id) => (ids.includes(id) ? value : -Infinity));
          expect(chosen).toBe(createSampler(sampling, vocab)(masked));
        },
      ),
    );
  });
});
