import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { deviceFields, type FilterableDevice } from './device-fields.js';
import { DeviceFilter, FILTER_LENGTH_MAX } from './device-filter.js';
import { FilterError } from './filter-error.js';

const kiosk: FilterableDevice = {
  id: '5f0c6f0e-8c5e-4d8e-9f6e-0c9a3c1f7a11',
  name: 'kiosk-7',
  labels: { site: 'berlin', ring: 'canary' },
  presence: 'online',
  phase: 'active',
  slice: 's-32',
  cores: 4,
  memoryBytes: 8 * 2 ** 30,
  cpuFeatures: ['avx2', 'fma'],
};
const matches = (text: string, device: FilterableDevice = kiosk): boolean => DeviceFilter.parse(text).matches(device);

function problemOf(text: string): FilterError {
  try {
    DeviceFilter.parse(text);
  } catch (error) {
    if (error instanceof FilterError) return error;
    throw error;
  }
  throw new Error(`${text} is a filter`);
}

describe('a device filter', () => {
  it.each([
    ['labels.site == "berlin" && presence == "online"', true],
    ['labels["site"] in ["paris", "berlin"]', true],
    ['cores < 4 || name.startsWith("kiosk-")', true],
    ['memoryBytes >= GiB(8) && memoryBytes < GB(9)', true],
    ['8 <= cores', false],
    ['cores in [2, 4]', true],
    ['!(slice == "s-32")', false],
    ['"ring" in labels && !("zone" in labels)', true],
    ['"avx512f" in cpuFeatures', false],
    ['name.contains("sk-") && name.endsWith("7") && cores != -1', true],
    ['true', true],
    ['false', false],
  ])('%s is %s for the kiosk', (text, expected) => {
    expect(matches(text)).toBe(expected);
  });

  it.each(['labels.zone == "a"', '!(labels.zone == "a")', 'labels.zone != "a"', 'freeDiskBytes > 0', '!(freeDiskBytes > 0)'])(
    '%s matches no device that lacks the value',
    (text) => expect(matches(text)).toBe(false),
  );

  it('lets a known side decide beside an unknown one', () => {
    expect(matches('labels.zone == "a" || cores == 4')).toBe(true);
    expect(matches('!(labels.zone == "a" && cores == 5)')).toBe(true);
  });

  it('does not take what every object has for a label', () => {
    expect(matches('"toString" in labels')).toBe(false);
    expect(matches('labels.constructor != ""')).toBe(false);
  });

  it.each([
    ['labels.site = "berlin"', 13, /Unexpected character/],
    ['core >= 4', 1, /Unknown variable: core/],
    ['cores >= "4"', 1, /no such overload: int >= string/],
    ['cores', 1, /true or false for a device, this is int/],
    ['presence == "onlin"', 13, /presence is online, suspect, offline; "onlin" is none of them/],
    ['name < "b"', 1, /text has no order/],
    ['cores >= memoryBytes', 10, /a whole number must stand here, or one of MB\(n\)/],
    ['name.matches("(a+)+$")', 1, /matches\(\) is not part of filters: use startsWith/],
    ['name == "a" && [1].all(x, x > 0)', 16, /all\(\) is not part of filters/],
    ['cores == 4 ? true : false', 1, /compares one field/],
    ['cores > 9223372036854775808', 9, /beyond 64 bits/],
    ['name == "\\u0000"', 9, /a character that no field can hold/],
    ['', 1, /Unexpected token: EOF/],
    ['name in []', 9, /the list is empty/],
  ])('refuses %s at column %i', (text, column, problem) => {
    const error = problemOf(text);
    expect([error.line, error.column]).toEqual([1, column]);
    expect(error.problem).toMatch(problem);
  });

  it('names the line of a filter of several', () => {
    expect(problemOf('cores >= 4 &&\n  nam == "a"').message).toMatch(/^filter, line 2, column 3: Unknown variable: nam/);
  });

  it('refuses what is too long or too deep before any work', () => {
    expect(problemOf(`name == "${'x'.repeat(FILTER_LENGTH_MAX)}"`).problem).toMatch(/characters are more than the 2000/);
    expect(() => DeviceFilter.parse(`${'('.repeat(900)}true${')'.repeat(900)}`)).toThrow(FilterError);
    expect(() => DeviceFilter.parse(`${'!'.repeat(1_500)}true`)).toThrow(FilterError);
  });

  it('reads every example of the fields', () => {
    for (const { example } of Object.values(deviceFields)) expect(() => DeviceFilter.parse(example)).not.toThrow();
  });

  it('answers any text with a filter or an error that has its place', () => {
    const piece = fc.constantFrom(
      'name',
      'cores',
      'labels',
      '.',
      '==',
      '&&',
      '||',
      '!',
      '(',
      ')',
      '[',
      ']',
      '"a"',
      '4',
      'in',
      'GB',
      ' ',
      '\n',
      '-',
      '?',
      ':',
      ',',
      '{',
      '}',
      "'",
    );
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.array(piece, { maxLength: 25 }).map((pieces) => pieces.join('')),
    );
    fc.assert(
      fc.property(text, (input) => {
        try {
          expect(typeof DeviceFilter.parse(input).matches(kiosk)).toBe('boolean');
        } catch (error) {
          expect(error).toBeInstanceOf(FilterError);
          const { line, column } = error as FilterError;
          expect(line).toBeGreaterThanOrEqual(1);
          expect(line).toBeLessThanOrEqual(input.split('\n').length);
          expect(column).toBeLessThanOrEqual(input.split('\n')[line - 1]!.length + 1);
        }
      }),
      { numRuns: 3_000, endOnFailure: true },
    );
  });
});
