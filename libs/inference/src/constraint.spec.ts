import { describe, expect, it } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { ConstraintSource, type Constraint } from './constraint.js';
import { compileGrammar } from './grammar.js';
import { jsonSchemaGrammar, SchemaError } from './json-schema-grammar.js';
import { isAllowed } from './token-masks.js';
import { TokenTrie } from './token-trie.js';

// A vocabulary of every byte, and pieces of JSON that run over the borders between a schema's parts.
const PIECES = [
  '{"',
  '":',
  '": ',
  '","',
  '"}',
  '"},{"',
  '}}',
  ',"',
  'true',
  'fal',
  'name',
  'zone',
  '"name"',
  '12',
  '-',
  '.5',
  '[]',
  '[1,',
  '{}',
  '\n  ',
  ' "',
  'é',
  '😀',
  '\\"',
  '\\u00',
  'e+',
  '", "',
  'abc',
];
const END = 0;
const bytes = (id: number): Uint8Array =>
  id === END ? new Uint8Array() : id <= 256 ? Uint8Array.of(id - 1) : new TextEncoder().encode(PIECES[id - 257]);
const SIZE = 257 + PIECES.length;
const trie = new TokenTrie(SIZE, bytes);

const sourceOf = (schema: unknown): ConstraintSource => {
  const { root, rules } = jsonSchemaGrammar(schema);
  return new ConstraintSource(compileGrammar(root, rules), () => trie, bytes, [END]);
};

/** Feeds a text byte by byte; false where the grammar refuses one. */
function reads(constraint: Constraint, text: string): boolean {
  for (const byte of new TextEncoder().encode(text)) {
    if (!constraint.allows(byte + 1)) return false;
    constraint.accept(byte + 1);
  }
  return true;
}
const accepts = (schema: unknown, text: string): boolean => {
  const constraint = sourceOf(schema).open();
  return reads(constraint, text) && constraint.allows(END);
};

/** A walk through the masks, as a model without any sense would take it; hurries to the end after `patience` tokens. */
function wander(source: ConstraintSource, random: () => number, patience: number): string | undefined {
  const constraint = source.open();
  const out: number[] = [];
  for (let step = 0; step < 400; step++) {
    const mask = constraint.mask();
    const allowed = Array.from({ length: SIZE }, (_, id) => id).filter((id) => isAllowed(mask, id));
    const one = Array.from({ length: SIZE }, (_, id) => id).filter((id) => constraint.allows(id));
    if (allowed.length === 0 || one.join() !== allowed.join()) throw new Error(`one by one ${one.join()} are allowed, by the mask ${allowed.join()}`);
    const closing = allowed.filter((id) => ['"', '}', ']', '"}', '}}', ''].includes(Buffer.from(bytes(id)).toString('latin1')));
    const pool = step >= patience && closing.length > 0 ? closing : allowed;
    const id = pool[Math.floor(random() * pool.length)]!;
    if (id === END) break;
    out.push(...bytes(id));
    constraint.accept(id);
    if (constraint.ended) break;
  }
  return constraint.allows(END) ? new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(out)) : undefined;
}

// -- random schemas within the subset, with documents that are valid under them

const key = fc.constantFrom('a', 'ab', 'name', 'zone', 'ключ', 'say "hi"');
interface Case {
  readonly schema: object | boolean;
  readonly document: fc.Arbitrary<unknown>;
}
const leaf: fc.Arbitrary<Case> = fc.oneof(
  fc.constant<Case>({ schema: { type: 'boolean', description: 'either' }, document: fc.boolean() }),
  fc.constant<Case>({ schema: { type: 'null' }, document: fc.constant(null) }),
  fc.constant<Case>({
    schema: { type: 'number' },
    document: fc.oneof(
      fc.integer(),
      fc.double({ noNaN: true, min: -1e300, max: 1e300 }).map((x) => (Object.is(x, -0) || Math.abs(x) < 1e-300 ? 0 : x)),
    ),
  }),
  fc.tuple(fc.integer({ min: -1500, max: 1500 }), fc.integer({ min: 0, max: 3000 })).map<Case>(([minimum, span]) => ({
    schema: { type: 'integer', minimum, maximum: minimum + span },
    document: fc.integer({ min: minimum, max: minimum + span }),
  })),
  fc.constant<Case>({ schema: { type: 'string' }, document: fc.string({ unit: 'binary' }) }),
  fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 4 })).map<Case>(([minLength, more]) => ({
    schema: { type: 'string', minLength, maxLength: minLength + more },
    document: fc.string({ unit: 'binary', minLength, maxLength: minLength + more }),
  })),
  fc.uniqueArray(fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)), { minLength: 1, maxLength: 5 }).map<Case>((values) => ({
    schema: { enum: values },
    document: fc.constantFrom(...values),
  })),
  fc.json().map<Case>((text) => ({ schema: { const: JSON.parse(text) as unknown }, document: fc.constant(JSON.parse(text) as unknown) })),
  fc.constant<Case>({ schema: true, document: fc.jsonValue({ maxDepth: 2 }).map(plainNumbers) }),
  fc.constant<Case>({ schema: { type: 'object' }, document: fc.dictionary(key, fc.integer()) }),
);

const { schemas } = fc.letrec<{ schemas: Case }>((tie) => ({
  schemas: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.tuple(tie('schemas'), fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 })).map<Case>(([items, minItems, more]) => ({
      schema: { type: 'array', items: items.schema, minItems, maxItems: minItems + more },
      document: fc.array(items.document, { minLength: minItems, maxLength: minItems + more }),
    })),
    fc
      .tuple(tie('schemas'), tie('schemas'))
      .map<Case>(([a, b]) => ({ schema: { anyOf: [a.schema, b.schema] }, document: fc.oneof(a.document, b.document) })),
    fc
      .tuple(fc.uniqueArray(key, { maxLength: 4 }), fc.array(fc.tuple(tie('schemas'), fc.boolean()), { minLength: 4, maxLength: 4 }), fc.boolean())
      .map<Case>(([names, parts, extra]) => {
        const required = names.filter((_, index) => parts[index]![1]);
        const known = fc.tuple(
          ...names.map((name, index) =>
            fc.tuple(fc.boolean(), parts[index]![0].document).map(([given, value]) => ({ name, value, given: given || required.includes(name) })),
          ),
        );
        return {
          schema: {
            type: 'object',
            properties: Object.fromEntries(names.map((name, index) => [name, parts[index]![0].schema])),
            required,
            additionalProperties: extra && { type: 'integer' },
          },
          document: fc.tuple(known, fc.integer()).map(([members, value]) => ({
            ...Object.fromEntries(members.filter(({ given }) => given).map((member) => [member.name, member.value])),
            ...(extra && { zzz: value }),
          })),
        };
      }),
  ),
}));

function plainNumbers(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, x: unknown) => (typeof x === 'number' && !(Math.abs(x) < 1e300 && Math.abs(x) > 1e-300) ? 0 : x)),
  ) as unknown;
}

const runs = { numRuns: 60 };

describe('an answer held to a JSON schema', () => {
  it('is valid, whatever a model would have liked to say', () => {
    fc.assert(
      fc.property(
        schemas,
        fc.infiniteStream(fc.double({ min: 0, max: 0.999999, noNaN: true })),
        fc.integer({ min: 0, max: 12 }),
        ({ schema }, stream, patience) => {
          const validate = new Ajv2020({ strict: false }).compile(schema);
          const text = wander(sourceOf(schema), () => stream.next().value as number, patience);
          if (text === undefined) return;
          expect([schema, text, validate(JSON.parse(text))]).toEqual([schema, text, true]);
        },
      ),
      runs,
    );
  });

  it('can become every valid document, compact or indented', () => {
    fc.assert(
      fc.property(
        schemas.chain(({ schema, document }) => fc.tuple(fc.constant(schema), document)),
        fc.constantFrom(0, 2),
        ([schema, document], indent) => {
          const text = JSON.stringify(document, null, indent);
          // A text that is read to its end was accepted with every prefix of it.
          expect([schema, text, accepts(schema, text)]).toEqual([schema, text, true]);
        },
      ),
      runs,
    );
  });

  it('follows a schema that refers to itself', () => {
    const tree = {
      $ref: '#/$defs/node',
      $defs: { node: { type: 'object', properties: { v: { type: 'integer' }, next: { $ref: '#/$defs/node' } }, required: ['v'] } },
    };
    expect(accepts(tree, '{"v":1,"next":{"v":2,"next":{"v":3}}}')).toBe(true);
    expect(accepts(tree, '{"v":1,"next":{"next":{"v":3}}}')).toBe(false);
  });

  it('keeps further keys apart from the known ones', () => {
    const schema = { type: 'object', properties: { name: { type: 'string' } }, additionalProperties: { type: 'integer' } };
    for (const good of ['{"nam":1}', '{"names":1}', '{"x":1,"y":2}', '{"name":"a","n":1}', '{}'])
      expect([good, accepts(schema, good)]).toEqual([good, true]);
    for (const bad of ['{"name":1}', '{"x":1,"name":2}', '{"\\u006eame":1}', '{"x":"y"}']) expect([bad, accepts(schema, bad)]).toEqual([bad, false]);
  });

  it('refuses a keyword that it cannot keep to, by its path', () => {
    const refused: [unknown, string][] = [
      [{ type: 'object', properties: { size: { type: 'string', pattern: '^a' } } }, 'properties.size.pattern'],
      [{ type: 'array', items: { type: 'integer', multipleOf: 3 } }, 'items.multipleOf'],
      [{ anyOf: [{ type: 'string' }, { type: 'number', minimum: 0 }] }, 'anyOf.1.minimum'],
      [{ oneOf: [{ type: 'string' }] }, 'oneOf'],
      [{ type: 'object', properties: {}, required: ['a'] }, 'required'],
      [{ $ref: 'https://example.com/schema' }, '$ref'],
      [{ type: 'strin' }, 'type'],
      [{ type: 'string', maxLength: 10_000 }, 'maxLength'],
      [{ type: 'object', properties: { a: { $ref: '#/$defs/none' } } }, 'properties.a.$ref'],
      [{ enum: [] }, 'enum'],
      [{ type: 'integer', minimum: 2.5, maximum: 2.7 }, ''],
    ];
    for (const [schema, path] of refused) {
      let error: unknown;
      try {
        jsonSchemaGrammar(schema);
      } catch (caught) {
        error = caught;
      }
      expect([schema, error instanceof SchemaError && error.path]).toEqual([schema, path]);
    }
    expect(() => sourceOf({ anyOf: [{ $ref: '#' }, { type: 'null' }] })).toThrow(/calls itself before it has read anything/);
  });

  it('ends where nothing can follow, and leaves it to the model where something can', () => {
    const closed = sourceOf({ type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] }).open();
    expect(reads(closed, '{"a":7}') && closed.ended).toBe(true);
    const open = sourceOf({ type: 'integer' }).open();
    expect(reads(open, '7') && !open.ended && open.allows(END)).toBe(true);
  });
});
