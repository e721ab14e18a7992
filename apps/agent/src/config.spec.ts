import { describe, expect, it } from '@jest/globals';
import { parseConfig } from './config.js';

describe("the agent's box", () => {
  it('is shared unless told otherwise, by flag before environment before file', () => {
    expect(parseConfig({}, {}).box).toBe('shared');
    expect(parseConfig({}, { MATFLEET_BOX: 'dedicated' }, { box: 'shared' }).box).toBe('dedicated');
    expect(parseConfig({ box: 'shared' }, { MATFLEET_BOX: 'dedicated' }).box).toBe('shared');
  });

  it('is refused by name where it is neither', () => {
    expect(() => parseConfig({ box: 'mine' }, {})).toThrow(/box: .*"dedicated"\|"shared"/);
  });
});

describe('what computes the model', () => {
  it('is the CPU unless told otherwise, with a grant of memory that people can write', () => {
    expect(parseConfig({}, {})).toMatchObject({ provider: 'cpu' });
    expect(parseConfig({ acceleratorMemory: '4GiB' }, { MATFLEET_PROVIDER: 'webgpu' })).toMatchObject({
      provider: 'webgpu',
      acceleratorMemory: 4 * 2 ** 30,
    });
    expect(() => parseConfig({ provider: 'tpu' }, {})).toThrow(/provider: .*"cpu"\|"webgpu"\|"cuda"/);
  });
});
