import { createHash } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { sliceRoot } from './slice-root.js';

const chunk = (name: string, bytes = 10) => ({ id: createHash('sha256').update(name).digest('hex'), bytes });

describe('sliceRoot', () => {
  it('is what RFC 6962 makes of three leaves: the third moves up beside the node of the first two', () => {
    const hash = (...parts: Buffer[]) => createHash('sha256').update(Buffer.concat(parts)).digest();
    const leaf = (name: string) => hash(Buffer.from([0]), Buffer.from(chunk(name).id, 'hex'), Buffer.from([0, 0, 0, 0, 0, 0, 0, 10]));
    const node = (left: Buffer, right: Buffer) => hash(Buffer.from([1]), left, right);
    expect(sliceRoot(['a', 'b', 'c'].map((name) => chunk(name)))).toBe(node(node(leaf('a'), leaf('b')), leaf('c')).toString('hex'));
  });

  it('changes with any chunk that is missing, added, swapped with another, of another size or of other bytes', () => {
    const chunks = fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 2, maxLength: 40 }).map((names) => names.map((name) => chunk(name)));
    fc.assert(
      fc.property(chunks, fc.nat(), fc.nat(), (all, a, b) => {
        const [i, j] = [a % all.length, b % all.length];
        const root = sliceRoot(all);
        expect(sliceRoot(all.filter((_, at) => at !== i))).not.toBe(root);
        expect(sliceRoot([...all, chunk('', 1)])).not.toBe(root);
        expect(sliceRoot(all.with(i, chunk('other bytes')))).not.toBe(root);
        expect(sliceRoot(all.with(i, { ...all[i]!, bytes: 11 }))).not.toBe(root);
        if (i !== j) expect(sliceRoot(all.with(i, all[j]!).with(j, all[i]!))).not.toBe(root);
      }),
    );
  });
});
