import { describe, expect, it } from '@jest/globals';
import { placeOf } from './use-place.js';

describe('placeOf', () => {
  it('is the fleet for an address without a page, with a place on it, or with one that there is not', () => {
    expect(['', '#devices', '#/', '#/nowhere'].map(placeOf)).toEqual(['fleet', 'fleet', 'fleet', 'fleet']);
    expect([placeOf('#/identity'), placeOf('#/audit')]).toEqual(['identity', 'audit']);
  });
});
