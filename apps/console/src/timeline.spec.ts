import { describe, expect, it } from '@jest/globals';
import type { TimelineEntry } from './api-types.js';
import { merged } from './timeline.js';

const entry = (id: number): TimelineEntry => ({ id, at: '2026-01-01T00:00:00.000Z', kind: 'presence', summary: `${id}` });

describe('merged', () => {
  it('keeps the newest first and nothing twice, whatever came by the page and whatever by the subscription', () => {
    expect(merged([entry(5), entry(3)], [entry(4), entry(5), entry(9)]).map(({ id }) => id)).toEqual([9, 5, 4, 3]);
  });
});
