import { describe, expect, it } from '@jest/globals';
import { durationText, progressText } from './progress-text.js';

describe('progress', () => {
  it('says percent, amount, speed and the time that is left at the average speed', () => {
    expect(progressText(3.5e9, 14e9, 10, true)).toBe('25 %, 3.50 GB of 14.0 GB, 350 MB/s, 30 s left');
    expect(progressText(4, 16, 12, false)).toBe('25 %, 4 of 16, 36 s left');
  });

  it('promises nothing before there is something to go by', () => {
    expect(progressText(0, 14e9, 20, true)).toBe('0 %, 0 B of 14.0 GB');
    expect(progressText(5, 16, 0.5, false)).toBe('31 %, 5 of 16');
    expect(progressText(0, 0, 5, false)).toBe('100 %, 0 of 0');
  });

  it.each([
    [0.2, '1 s'],
    [59.2, '1 min 0 s'],
    [4230, '1 h 10 min'],
  ])('%d seconds are %s', (seconds, text) => expect(durationText(seconds)).toBe(text));
});
