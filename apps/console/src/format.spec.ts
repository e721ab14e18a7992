import { describe, expect, it } from '@jest/globals';
import { ago, bytes, duration, percent, shortVersion, significant } from './format.js';

describe('format', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [2 * 1024 ** 2, '2.0 MiB'],
    [3_640_000_000, '3.4 GiB'],
    [5 * 1024 ** 5, '5120 TiB'],
  ])('writes %d bytes as %s', (value, text) => expect(bytes(value)).toBe(text));

  it.each([
    [0.4213, '0.42 ms'],
    [31.04, '31.0 ms'],
    [999, '999 ms'],
    [2431, '2.4 s'],
  ])('writes %d milliseconds as %s', (ms, text) => expect(duration(ms)).toBe(text));

  it('keeps no digit that the eye does not use', () => {
    expect([412.3, 12, 12.34, 9.37, 0.0712].map(significant)).toEqual(['412', '12', '12.3', '9.4', '0.07']);
    expect(percent(0.9431)).toBe('94.3 %');
    expect(shortVersion('0123456789abcdef')).toBe('01234567');
  });

  it('says how long ago in one unit, and never in the future', () => {
    const at = '2026-11-24T04:00:00.000Z';
    const after = (seconds: number) => ago(at, Date.parse(at) + seconds * 1000);
    expect([-5, 1, 12, 240, 3 * 3600, 2 * 86400].map(after)).toEqual(['now', 'now', '12 s ago', '4 min ago', '3 h ago', '2 d ago']);
  });
});
