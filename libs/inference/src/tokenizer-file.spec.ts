import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { readTokenizerFile } from './tokenizer-file.js';

const read = (text: string) => readTokenizerFile(Buffer.from(text));
const tokens = fc
  .uniqueArray(fc.string({ unit: 'binary', minLength: 1, maxLength: 6 }), { minLength: 2, maxLength: 60 })
  .filter((list) => list.every((token) => token.isWellFormed()));

describe('tokenizer file', () => {
  it('finds every token of any vocabulary, whatever characters and escapes it has', () => {
    fc.assert(
      fc.property(tokens, fc.constantFrom(0, 2), (list, indent) => {
        const vocab = Object.fromEntries(list.map((token, i) => [token, 3 * i]));
        const merges = list.slice(1).map((token, i) => [list[i], token]);
        const file = read(JSON.stringify({ added_tokens: ['vocab', 'merges'], model: { type: 'BPE', vocab, merges, last: true } }, null, indent));
        expect(list.map((token) => file.vocabulary.idOf(token))).toEqual(list.map((_, i) => 3 * i));
        expect(list.map((_, i) => file.vocabulary.textOf(3 * i))).toEqual(list);
        expect([...file.merges]).toEqual(merges.flatMap((_, i) => [3 * i, 3 * i + 3]));
        expect(file.json).toEqual({ added_tokens: ['vocab', 'merges'], model: { type: 'BPE', vocab: {}, merges: [], last: true } });
      }),
    );
  });

  it('knows no token that is not there', () => {
    const { vocabulary } = read('{"model": {"vocab": {"a": 0, "ab": 4}, "merges": []}}');
    expect([vocabulary.idOf('b'), vocabulary.textOf(1), vocabulary.textOf(5), vocabulary.size]).toEqual([undefined, undefined, undefined, 5]);
  });

  it('may be a view into larger memory, as a chunk is', () => {
    const text = Buffer.from('xx{"model": {"vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}yy');
    expect([...readTokenizerFile(text.subarray(2, -2)).merges]).toEqual([0, 1]);
  });

  it.each([
    ['{"model": {"merges": []}}', 'model.vocab is missing, or does not open with {'],
    ['{"model": {"vocab": [["a", -1]], "merges": []}}', 'model.vocab is missing, or does not open with {'],
    ['{"model": {"vocab": {"a": 0}}}', 'model.merges is missing, or does not open with ['],
    ['{"model": {"vocab": {"a": -1}, "merges": []}}', 'expected a whole number at byte 26 of 45'],
    ['{"model": {"vocab": {"a": 0} "merges": []}}', 'Expected'],
    ['{"model": {"vocab": {"a": 0, "b', 'ends inside a string'],
    ['{"model": {"vocab": {"a": 0}, "merges": ["a"]}}', 'merge 0 has no blank between its two parts'],
    ['{"model": {"vocab": {"a": 0}, "merges": [["a", "q"]]}}', 'merge 0 joins "q", which is not in the vocabulary'],
  ])('refuses %s', (text, message) => {
    expect(() => read(text)).toThrow(message);
  });
});
