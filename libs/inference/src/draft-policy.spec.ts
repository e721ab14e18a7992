import { publishedShapes } from '@matfleet/model';
import { describe, expect, it } from '@jest/globals';
import { exactDraftTokens } from './draft-policy.js';

describe('drafts that change no answer', () => {
  const { e2b } = publishedShapes;

  it('are made where products keep activations as they are: narrow models, and unquantised ones', () => {
    expect(exactDraftTokens({ config: { ...e2b, hiddenSize: 512 }, precision: { kind: 'int4', block: 64 } })).toBeGreaterThan(0);
    expect(exactDraftTokens({ config: e2b, precision: { kind: 'fp32', block: 0 } })).toBeGreaterThan(0);
  });

  it.each(['int4', 'int8'] as const)('are not made where a wide %s model rounds activations', (kind) => {
    expect(exactDraftTokens({ config: e2b, precision: { kind, block: 64 } })).toBe(0);
  });
});
