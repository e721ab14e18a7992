import { describe, expect, it } from '@jest/globals';
import { formatJoinToken, parseJoinToken } from './join-token.js';

const caSha256 = 'ab'.repeat(32);

describe('the join token', () => {
  it('is read back as it was written', () => {
    const token = { secret: 'c2VjcmV0LW9mLXRoZS1mbGVldA', caSha256 };
    expect(parseJoinToken(`  ${formatJoinToken(token)}\n`)).toEqual(token);
  });

  it.each([
    ['another version', `mf2.c2VjcmV0LW9mLXRoZS1mbGVldA.${caSha256}`],
    ['a short hash', `mf1.c2VjcmV0LW9mLXRoZS1mbGVldA.${caSha256.slice(2)}`],
    ['an upper-case hash', `mf1.c2VjcmV0LW9mLXRoZS1mbGVldA.${caSha256.toUpperCase()}`],
    ['a guessable secret', `mf1.short.${caSha256}`],
  ])('refuses %s without repeating the secret', (_what, text) => {
    let message = '';
    try {
      parseJoinToken(text);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toMatch(/not a join token/);
    expect(message).not.toContain('c2Vj');
  });

  it('is not made from parts that cannot be read back', () => {
    expect(() => formatJoinToken({ secret: 'with.dot.inside.it.all', caSha256 })).toThrow(/base64url/);
  });
});
