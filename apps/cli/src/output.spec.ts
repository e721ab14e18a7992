import { Writable } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import { createOutput, formatBytes, table } from './output.js';

const sink = () => {
  let text = '';
  return { stream: new Writable({ write: (chunk, _encoding, done) => ((text += String(chunk)), done()) }), text: () => text };
};

describe('output', () => {
  it('prints one document with --json and keeps streamed text away from it', () => {
    const [out, err] = [sink(), sink()];
    const output = createOutput(true, out.stream, err.stream);
    output.stream('partial');
    output.note('remark');
    output.result({ a: 1 }, () => 'for people');
    expect([out.text(), err.text()]).toEqual(['{"a":1}\n', 'remark\n']);
    expect(() => output.result({}, () => '')).toThrow('a command has one result');
  });

  it('aligns columns', () => {
    const rows = [
      { name: 'a', size: 5 },
      { name: 'long', size: 120 },
    ];
    expect(
      table(rows, [
        { title: 'name', value: (row) => row.name },
        { title: 'size', value: (row) => `${row.size}`, align: 'right' },
      ]),
    ).toBe('name  size\na        5\nlong   120');
  });

  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.00 kB'],
    [1_234_567, '1.23 MB'],
    [999_999, '1000 kB'],
    [7_850_000_000, '7.85 GB'],
  ])('writes %d bytes as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});
