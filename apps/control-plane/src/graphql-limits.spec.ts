import { describe, expect, it } from '@jest/globals';
import { buildSchema, parse, validate } from 'graphql';
import { aliasLimit, costLimit } from './graphql-limits.js';

const schema = buildSchema(`
  type Query { devices(first: Int): [Device!]! audit(limit: Int = 100): [Record!]! models: [Model!]! timeline(limit: Int = 50): Page! device: Device }
  type Page { entries: [Record!]! }
  type Device { name: String labels: [Label!]! model: Model }
  type Label { key: String value: String }
  type Model { name: String devices: [Device!]! }
  type Record { at: String }
  type Subscription { changed: Device }`);

const cost = (query: string): number => {
  const [error] = validate(schema, parse(query), [costLimit(0)]);
  return Number(/may cost (\d+)/.exec(error?.message ?? '')?.[1] ?? 0);
};

describe('the cost of a query', () => {
  it.each([
    ['{ device { name } }', 2],
    ['{ devices(first: 10) { name } }', 20],
    ['{ devices(first: 10) { labels { key value } } }', 10 * (1 + 20 * 3)],
    ['{ devices { name } }', 2_000],
    ['query ($n: Int) { devices(first: $n) { name } }', 2_000],
    ['{ devices(first: 1000000) { name } }', 2_000],
    ['{ audit { at } }', 200],
    ['{ models { name devices { name } } }', 200 * (2 + 20 * 2)],
    ['{ timeline(limit: 5) { entries { at } } }', 5 * (1 + 20 * 2)],
    ['{ a: device { name } b: device { name } }', 4],
    ['{ device { ...D } } fragment D on Device { name model { name } }', 4],
    ['subscription { changed { labels { key } } }', 41],
    ['{ __schema { types { name } } }', 1],
  ])('of %s is %d', (query, expected) => expect(cost(query)).toBe(expected));

  it('refuses by the numbers, and a fragment that holds itself does not run for ever', () => {
    const [error] = validate(schema, parse('{ devices { name } }'), [costLimit(1_999)]);
    expect(error!.message).toBe('the query may cost 2000 fields, at most 1999 are answered');
    expect(error!.extensions).toEqual({ code: 'resource-exhausted' });
    const doubling = Array.from({ length: 40 }, (_, i) => `fragment F${i} on Device { ...F${i + 1} ...F${i + 1} }`).join(' ');
    expect(cost(`{ device { ...F0 } } ${doubling} fragment F40 on Device { name }`)).toBeGreaterThan(2 ** 40);
    expect(cost('{ device { ...A } } fragment A on Device { name model { devices { ...A } } }')).toBeGreaterThan(0);
  });
});

describe('aliases', () => {
  it('are counted over the whole document, fragments too', () => {
    const query = `{ device { ${Array.from({ length: 3 }, (_, i) => `a${i}: name`).join(' ')} ...F } } fragment F on Device { b: name }`;
    expect(validate(schema, parse(query), [aliasLimit(4)])).toEqual([]);
    expect(validate(schema, parse(query), [aliasLimit(3)])[0]!.message).toBe('the query has 4 aliases, at most 3 are taken');
  });
});
