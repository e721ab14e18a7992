import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createTextStream, type Piece } from './text-stream.js';

// Ids 0..255 are bytes, 256 is a special token, above that one character each.
const pieceAt = (id: number): Piece => (id < 256 ? { byte: id } : id === 256 ? undefined : { text: String.fromCodePoint(id) });
const bytesOf = (text: string): number[] => [...Buffer.from(text)];
const streamed = (ids: number[]): string[] => {
  const stream = createTextStream(pieceAt);
  return [...ids.map((id) => stream.push(id)), stream.end()];
};

describe('text stream', () => {
  it('holds the bytes of a character back until it is complete', () => {
    expect(streamed(bytesOf('é😀'))).toEqual(['', 'é', '', '', '', '😀', '']);
  });

  it('drops a character left unfinished at the end', () => {
    expect(streamed([...bytesOf('ab'), 0xf0, 0x9f, 0x98])).toEqual(['a', 'b', '', '', '', '']);
  });

  it('gives one U+FFFD for each byte that cannot become a character, and goes on', () => {
    expect(streamed([0xe4, 0xbd, 0x41]).join('')).toBe('\ufffd\ufffdA');
    expect(streamed([0xc0, 0xaf, 0xed, 0xa0, 0x80, 0xf5]).join('')).toBe('\ufffd'.repeat(6));
    expect(streamed([0xe4, 0x4e00]).join('')).toBe('\ufffd一');
  });

  it('a special token neither ends a character nor shows', () => {
    expect(streamed([0xc3, 256, 0xa9])).toEqual(['', '', 'é', '']);
  });

  it('gives back any text from its bytes, and no U+FFFD however the text is cut', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), fc.nat(), (text, cut) => {
        const bytes = bytesOf(text);
        expect(streamed(bytes).join('')).toBe(text);
        const begun = streamed(bytes.slice(0, cut % (bytes.length + 1))).join('');
        expect(text.startsWith(begun)).toBe(true);
      }),
    );
  });

  it('agrees with the WHATWG decoder on which byte sequences are well formed', () => {
    const fatal = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const byte = fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0xe0, 0xed, 0xf0, 0xf4, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf));
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 8 }), (bytes) => {
        let text: string | undefined;
        try {
          text = fatal.decode(Uint8Array.from(bytes));
        } catch {
          text = undefined;
        }
        const ours = streamed([...bytes, 0x41]).join('');
        if (text !== undefined) expect(ours).toBe(`${text}A`);
        else expect(ours).toContain('\ufffd');
      }),
      { numRuns: 2000 },
    );
  });
});
