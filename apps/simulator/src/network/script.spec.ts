import { describe, expect, it } from '@jest/globals';
import { drawGroup, parseScript, proxiedGroups, REST } from './script.js';

describe('a fault script', () => {
  it('is YAML or JSON', () => {
    const yaml = parseScript('groups: { far: 0.5 }\nfaults:\n  - { kind: delay, at: 1, for: 2, group: far, ms: 200 }\n', 's.yaml');
    expect(yaml).toEqual({ groups: { far: 0.5 }, faults: [{ kind: 'delay', at: 1, for: 2, group: 'far', ms: 200, jitterMs: 0 }] });
    expect(parseScript(JSON.stringify(yaml), 's.json')).toEqual(yaml);
  });

  it('names every problem with its place', () => {
    const text = 'groups: { far: 0.7, near: 0.7 }\nfaults: [{ kind: drop, at: 0, group: fra }, { kind: flood, at: 0 }]';
    expect(() => parseScript(text, 's.yaml')).toThrow(/s\.yaml is no fault script:[^]*faults\.1\.kind/);
    expect(() => parseScript(text.replace('flood', 'drop'), 's.yaml')).toThrow(
      /shares add up to 1\.4[^]*faults\.0\.group: there is no group fra; there is: far, near/,
    );
  });

  it('puts a device into one group by its share', () => {
    const script = parseScript('{ groups: { far: 0.2, flaky: 0.3 }, faults: [] }', 's');
    expect([0, 0.19, 0.2, 0.49, 0.51, 0.99].map((chance) => drawGroup(script, chance))).toEqual(['far', 'far', 'flaky', 'flaky', REST, REST]);
  });

  it('sends only the groups through a proxy whose sockets break', () => {
    const script = (faults: string) => proxiedGroups(parseScript(`{ groups: { a: 0.1, b: 0.1 }, faults: [${faults}] }`, 's'));
    expect(script('{ kind: drop, at: 0, group: a }, { kind: skew, at: 0, ms: 5, group: b }')).toEqual(['a']);
    expect(script('{ kind: freeze, at: 0 }')).toEqual(['a', 'b', REST]);
    expect(script('{ kind: reorder, at: 0 }')).toEqual([]);
  });
});
