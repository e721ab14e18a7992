import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { formatWidths, labelPatch, parseIds, parseNumber, parseWhole, parseWidths } from './arguments.js';

describe('option values', () => {
  it('reads ids with or without blanks', () => {
    expect(parseIds('--ids', '5, 9,12')).toEqual([5, 9, 12]);
  });

  it.each(['', '5,,9', '5,a', '-1', '1.5', '1e3', '99999999999'])('refuses the ids %j', (text) => {
    expect(() => parseIds('--ids', text)).toThrow(/--ids: ".*" is not a whole number/);
  });

  it('reads runs of widths', () => {
    expect(parseWidths('--ffn', '64x2,128, 64 x 1')).toEqual([64, 64, 128, 64]);
  });

  it('writes widths as it reads them', () => {
    const widths = fc.array(fc.integer({ min: 1, max: 16384 }), { minLength: 1, maxLength: 40 });
    fc.assert(fc.property(widths, (list) => expect(parseWidths('--ffn', formatWidths(list))).toEqual(list)));
  });

  it.each([
    ['0x4', 'neither a width nor'],
    ['64x0', 'neither a width nor'],
    ['64*4', 'neither a width nor'],
    ['64x4000000', 'asks for 4000000 layers'],
  ])('refuses the widths %j', (text, message) => {
    expect(() => parseWidths('--ffn', text)).toThrow(message);
  });

  it('reads changes of labels', () => {
    expect(labelPatch(['site=berlin', 'note=a=b', 'empty=', 'ring-'])).toEqual({ site: 'berlin', note: 'a=b', empty: '', ring: null });
  });

  it.each(['site', '=berlin', '-', ''])('refuses the label change %j', (text) => {
    expect(() => labelPatch([text])).toThrow(/neither key=value, to set a label, nor key-/);
  });

  it('refuses numbers out of range, naming the range', () => {
    expect(() => parseNumber('--quality-floor', '1.2', 0, 1)).toThrow('--quality-floor: "1.2" is not a number from 0 to 1');
    expect(() => parseWhole('--prefill', '0', 1)).toThrow('--prefill: "0" is not a whole number from 1');
  });
});
