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
