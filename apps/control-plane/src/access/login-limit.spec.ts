import { describe, expect, it } from '@jest/globals';
import { LoginLimit } from './login-limit.js';

describe('LoginLimit', () => {
  it('closes for an address after 3 failures, stays open for another, and opens again after the window', () => {
    const limit = new LoginLimit({ perAddress: 3, overall: 100, windowMs: 1_000 });
    for (let i = 0; i < 3; i++) limit.failed('10.0.0.1', 0);
    expect(limit.allows('10.0.0.1', 999)).toBe(false);
    expect(limit.allows('10.0.0.2', 999)).toBe(true);
    expect(limit.allows('10.0.0.1', 1_000)).toBe(true);
  });

  it('closes for everyone after 5 failures in all', () => {
    const limit = new LoginLimit({ perAddress: 3, overall: 5, windowMs: 1_000 });
    for (let i = 0; i < 5; i++) limit.failed(`10.0.0.${i}`, 0);
    expect(limit.allows('10.0.1.1', 1)).toBe(false);
  });
});
