import { describe, expect, it } from '@jest/globals';
import { CONNECTIONS_PER_SECOND, reconnectJitterMs } from '../domain/reconnect.js';
import { Admission, NEW_SESSIONS_PER_SECOND, TooMany } from './admission.js';

const refusalOf = (work: () => void): TooMany => {
  try {
    work();
  } catch (error) {
    if (error instanceof TooMany) return error;
    throw error;
  }
  throw new Error('was not refused');
};

describe('Admission', () => {
  it('tells ten thousand devices that come at once moments that fill the following seconds evenly, and lets them in then', () => {
    const admission = new Admission(0);
    const promised: number[] = [];
    let taken = 0;
    for (let i = 0; i < 10_000; i += 1)
      try {
        admission.open(`d-${i}`, 0);
        taken += 1;
      } catch (error) {
        promised.push((error as TooMany).retryAfterMs);
      }
    expect(taken).toBe(2 * NEW_SESSIONS_PER_SECOND);
    expect(promised[0]).toBe(4);
    for (let second = 0; second < 30; second += 1)
      expect(promised.filter((ms) => ms > second * 1_000 && ms <= (second + 1) * 1_000)).toHaveLength(NEW_SESSIONS_PER_SECOND);
    for (const [i, ms] of promised.entries()) expect(() => admission.open(`d-${taken + i}`, ms)).not.toThrow();
  });

  it('turns one device away that opens sessions without end, while all others get in', () => {
    const admission = new Admission(0);
    for (let i = 0; i < 10; i += 1) admission.open('loop', 0);
    for (let i = 0; i < 1_000; i += 1) expect(refusalOf(() => admission.open('loop', 0)).refusal).toBe('device');
    for (let i = 0; i < 400; i += 1) admission.open(`other-${i}`, 0);
  });

  it('counts enrolments apart: they keep no device out', () => {
    const admission = new Admission(0);
    for (let i = 0; i < 200; i += 1) admission.enrol(0);
    expect(refusalOf(() => admission.enrol(0)).refusal).toBe('enrolments');
    admission.open('d', 0);
  });
});

describe('reconnectJitterMs', () => {
  it('spreads the return of a fleet below the rate of handshakes', () => {
    for (const devices of [1, 100, 15_000]) expect(devices / (reconnectJitterMs(devices) / 1_000)).toBeLessThan(CONNECTIONS_PER_SECOND);
  });
});
