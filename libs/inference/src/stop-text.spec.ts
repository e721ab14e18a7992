import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createStopText } from './stop-text.js';

describe('a stop text', () => {
  it('is found across pieces, and what only began like one comes out when the next piece tells', () => {
    const stop = createStopText(['END', '\n\n']);
    expect(stop.push('the E')).toEqual({ text: 'the ', stopped: false });
    expect(stop.push('N')).toEqual({ text: '', stopped: false });
    expect(stop.push('T E')).toEqual({ text: 'ENT ', stopped: false });
    expect(stop.push('ND and more')).toEqual({ text: '', stopped: true });
  });

  it('comes out at the end where it stayed incomplete', () => {
    const stop = createStopText(['}}']);
    expect(stop.push('{"a":1}')).toEqual({ text: '{"a":1', stopped: false });
    expect(stop.end()).toBe('}');
  });

  it('cuts any text in any pieces where its first occurrence begins', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 4 });
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 12 }), fc.array(letters.filter(Boolean), { minLength: 1, maxLength: 3 }), (pieces, stops) => {
        const stop = createStopText(stops);
        let out = '';
        let stopped = false;
        for (const piece of pieces) {
          const step = stop.push(piece);
          out += step.text;
          if ((stopped = step.stopped)) break;
        }
        out += stop.end();
        const all = pieces.join('');
        const first = Math.min(...stops.map((one) => all.indexOf(one)).filter((at) => at >= 0), all.length);
        // Between two stop texts that overlap, the one that is complete first ends the answer.
        if (stopped) expect(stops.some((one) => all.startsWith(one, out.length))).toBe(true);
        else expect(out).toBe(all);
        expect(out.length).toBeGreaterThanOrEqual(first);
        expect(stops.some((one) => out.includes(one))).toBe(false);
      }),
    );
  });
});
