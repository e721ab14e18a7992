import { choice, literal, optional, repeat, rule, sequence, type Expression } from './grammar.js';
import { anyJson, integerBetween, MOST_INTEGER, number, otherKey, space, stringOf } from './json-grammar.js';

/** A schema that cannot be kept to. `path` names the keyword, as `properties.size.pattern`. */
export class SchemaError extends RangeError {
  constructor(
    readonly path: string,
    why: string,
  ) {
    super(`schema${path === '' ? '' : ` at ${path}`}: ${why}`);
    this.name = 'SchemaError';
  }
}

const ANNOTATIONS = [
  'title',
  'description',
  'default',
  'examples',
  '$schema',
  '$id',
  '$comment',
  'deprecated',
  'readOnly',
  'writeOnly',
  '$defs',
  'definitions',
];
const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  number: [],
  boolean: [],
  null: [],
};
const MOST_REPEATS = 1_000;
const DEEPEST = 64;

type Schema = Readonly<Record<string, unknown>>;
type Path = readonly string[];

/**
 * The texts that are valid under a JSON schema, as a grammar. Properties come in the order in which the schema names them, and others only where
 * `additionalProperties` invites them. Throws SchemaError at a keyword that it cannot keep to, rather than ignore it.
 */
export function jsonSchemaGrammar(root: unknown): { readonly root: Expression; readonly rules: ReadonlyMap<string, Expression> } {
  const rules = new Map(anyJson);
  const laid = new Set<string>();

  function lay(schema: unknown, path: Path): Expression {
    if (path.length > DEEPEST) throw new SchemaError(path.join('.'), `it is nested deeper than ${DEEPEST}`);
    if (schema === true) return rule('value');
    if (!isObject(schema)) throw new SchemaError(path.join('.'), schema === false ? 'false allows nothing' : 'it must be an object or true');
    const whole = Object.keys(schema).filter((keyword) => !ANNOTATIONS.includes(keyword));
    const [alone] = ['$ref', 'anyOf', 'const', 'enum'].filter((keyword) => whole.includes(keyword));
    if (alone === undefined) return layTypes(schema, whole, path);
    for (const keyword of whole)
      if (keyword !== alone && !(keyword === 'type' && (alone === 'const' || alone === 'enum')))
        throw new SchemaError([...path, keyword].join('.'), `it cannot stand beside ${alone}`);
    const here = [...path, alone];
    switch (alone) {
      case '$ref':
        return refer(schema['$ref'], here);
      case 'anyOf':
        return choice(...list(schema['anyOf'], here).map((one, index) => lay(one, [...here, String(index)])));
      case 'const':
        return valueText(schema['const']);
      default:
        return oneOf(list(schema['enum'], here), schema['type'], here);
    }
  }

  function refer(ref: unknown, path: Path): Expression {
    if (typeof ref !== 'string' || !/^#(\/|$)/.test(ref))
      throw new SchemaError(path.join('.'), `${JSON.stringify(ref)} is not within the schema (#/…)`);
    const steps = ref
      .split('/')
      .slice(1)
      .map((step) => decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~'));
    let target: unknown = root;
    for (const step of steps) target = isObject(target) && Object.hasOwn(target, step) ? target[step] : undefined;
    if (target === undefined) throw new SchemaError(path.join('.'), `${ref} leads nowhere`);
    const name = `$ref ${ref}`;
    if (!laid.has(name)) {
      laid.add(name);
      rules.set(name, lay(target, steps));
    }
    return rule(name);
  }

  function layTypes(schema: Schema, keywords: readonly string[], path: Path): Expression {
    const types = typesOf(schema, keywords, path);
    if (types === undefined) {
      if (keywords.length > 0) throw unknown(keywords[0]!, path);
      return rule('value');
    }
    for (const keyword of keywords)
      if (keyword !== 'type' && !types.some((type) => KEYWORDS[type]!.includes(keyword))) throw unknown(keyword, path, types);
    return choice(...types.map((type) => layType(type, schema, path)));
  }

  function layType(type: string, schema: Schema, path: Path): Expression {
    switch (type) {
      case 'object':
        return layObject(schema, path);
      case 'array':
        return layArray(schema, path);
      case 'string':
        return schema['minLength'] === undefined && schema['maxLength'] === undefined ? rule('string') : stringOf(...bounds(schema, 'Length', path));
      case 'integer':
        return layInteger(schema, path);
      case 'number':
        return number;
      case 'boolean':
        return choice(literal('true'), literal('false'));
      default:
        return literal('null');
    }
  }

  function layObject(schema: Schema, path: Path): Expression {
    const properties = schema['properties'] ?? {};
    const additional = schema['additionalProperties'] ?? schema['properties'] === undefined;
    const required = schema['required'] === undefined ? [] : list(schema['required'], [...path, 'required'], 0);
    if (!isObject(properties)) throw new SchemaError([...path, 'properties'].join('.'), 'it must be an object');
    const names = Object.keys(properties);
    for (const name of required)
      if (typeof name !== 'string' || !names.includes(name))
        throw new SchemaError([...path, 'required'].join('.'), `${JSON.stringify(name)} is not among the properties`);
    if (names.length === 0 && additional === true) return rule('object');

    const member = (key: Expression, value: Expression): Expression => sequence(key, literal(':'), space, value);
    const comma = (first: boolean): Expression => (first ? literal('') : sequence(literal(','), space));
    const prefix = `${path.join('.')} properties`;
    /** The members from the `index`th property on; `first`: none was written yet. */
    const tail = (index: number, first: boolean): string => `${prefix} ${index}${first ? ' first' : ''}`;
    names.forEach((name, index) => {
      const value = lay(properties[name], [...path, 'properties', name]);
      rules.set(`${prefix} ${index} value`, value);
      for (const first of [true, false]) {
        const written = sequence(comma(first), member(literal(JSON.stringify(name)), rule(`${prefix} ${index} value`)), rule(tail(index + 1, false)));
        rules.set(tail(index, first), required.includes(name) ? written : choice(written, rule(tail(index + 1, first))));
      }
    });
    const extra = additional === false ? undefined : member(otherKey(names), lay(additional, [...path, 'additionalProperties']));
    for (const first of [true, false])
      rules.set(tail(names.length, first), extra ? optional(sequence(comma(first), extra, repeat(sequence(comma(false), extra)))) : literal(''));
    return sequence(literal('{'), space, rule(tail(0, true)), space, literal('}'));
  }

  function layArray(schema: Schema, path: Path): Expression {
    const item = `${path.join('.')} items`;
    const [least, most] = bounds(schema, 'Items', path);
    rules.set(item, lay(schema['items'] ?? true, [...path, 'items']));
    if (most === 0) return sequence(literal('['), space, literal(']'));
    const some = sequence(rule(item), repeat(sequence(literal(','), space, rule(item)), Math.max(0, least - 1), most - 1), space);
    return sequence(literal('['), space, least === 0 ? optional(some) : some, literal(']'));
  }

  return { root: lay(root, []), rules };
}

const unknown = (keyword: string, path: Path, types?: readonly string[]): SchemaError =>
  new SchemaError([...path, keyword].join('.'), `the keyword ${keyword} is not supported${types ? ` for ${types.join(', ')}` : ''}`);

function typesOf(schema: Schema, keywords: readonly string[], path: Path): string[] | undefined {
  const { type } = schema;
  if (type === undefined) {
    // Keywords of one type say nothing of others, but an answer of that type is meant.
    const meant = Object.keys(KEYWORDS).find((one) => KEYWORDS[one]!.some((keyword) => keywords.includes(keyword)));
    return meant === undefined ? undefined : [meant];
  }
  const types = Array.isArray(type) ? (type as unknown[]) : [type];
  for (const one of types)
    if (typeof one !== 'string' || !Object.hasOwn(KEYWORDS, one))
      throw new SchemaError([...path, 'type'].join('.'), `${JSON.stringify(one)} is no type`);
  if (types.length === 0) throw new SchemaError([...path, 'type'].join('.'), 'it allows nothing');
  return types as string[];
}

function oneOf(values: readonly unknown[], type: unknown, path: Path): Expression {
  const fitting = values.filter(
    (value) => type === undefined || (Array.isArray(type) ? (type as unknown[]) : [type]).some((one) => isOfType(value, one)),
  );
  if (fitting.length === 0) throw new SchemaError(path.join('.'), 'none of its values is of the type beside it');
  const [compound, plain] = [fitting.filter(isCompound), fitting.filter((value) => !isCompound(value))];
  return choice(...(plain.length > 0 ? [oneText(plain.map((value) => JSON.stringify(value)))] : []), ...compound.map(valueText));
}

/** One of some texts, with their common beginnings said once: many values would otherwise be as many places at the same time. */
function oneText(texts: readonly string[]): Expression {
  const byFirst = new Map<string, string[]>();
  for (const text of new Set(texts)) {
    const first = text === '' ? '' : String.fromCodePoint(text.codePointAt(0)!);
    byFirst.set(first, [...(byFirst.get(first) ?? []), text.slice(first.length)]);
  }
  return choice(
    ...[...byFirst].map(([first, rest]) =>
      first === '' ? literal('') : rest.length === 1 ? literal(first + rest[0]!) : sequence(literal(first), oneText(rest)),
    ),
  );
}

const isCompound = (value: unknown): value is object => typeof value === 'object' && value !== null;

/** Just this value, with or without space between its parts. */
function valueText(value: unknown): Expression {
  if (!isCompound(value)) return literal(JSON.stringify(value));
  const parts = Array.isArray(value)
    ? value.map((one: unknown) => valueText(one))
    : Object.entries(value).map(([key, one]) => sequence(literal(`${JSON.stringify(key)}:`), space, valueText(one)));
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const members = parts.flatMap((part, index) => [literal(index === 0 ? '' : ','), space, part]);
  return sequence(literal(open!), ...members, space, literal(close!));
}

function isOfType(value: unknown, type: unknown): boolean {
  if (value === null) return type === 'null';
  if (Array.isArray(value)) return type === 'array';
  if (typeof value === 'number') return type === 'number' || (type === 'integer' && Number.isInteger(value));
  return typeof value === type;
}

function layInteger(schema: Schema, path: Path): Expression {
  const bound = (keyword: string, otherwise: number): number => {
    const value = schema[keyword];
    if (value === undefined) return otherwise;
    if (typeof value !== 'number') throw new SchemaError([...path, keyword].join('.'), 'it must be a number');
    return value;
  };
  const low = Math.max(Math.ceil(bound('minimum', -MOST_INTEGER)), Math.floor(bound('exclusiveMinimum', -MOST_INTEGER - 1)) + 1, -MOST_INTEGER);
  const high = Math.min(Math.floor(bound('maximum', MOST_INTEGER)), Math.ceil(bound('exclusiveMaximum', MOST_INTEGER + 1)) - 1, MOST_INTEGER);
  if (low > high) throw new SchemaError(path.join('.'), `no whole number lies between ${low} and ${high}`);
  return integerBetween(low, high);
}

function bounds(schema: Schema, of: 'Length' | 'Items', path: Path): [least: number, most: number] {
  const bound = (keyword: string, otherwise: number): number => {
    const value = schema[keyword];
    if (value === undefined) return otherwise;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MOST_REPEATS) return value;
    throw new SchemaError([...path, keyword].join('.'), `it must be a whole number from 0 to ${MOST_REPEATS}`);
  };
  const [least, most] = [bound(`min${of}`, 0), bound(`max${of}`, Infinity)];
  if (least > most) throw new SchemaError([...path, `min${of}`].join('.'), `it is above max${of}`);
  return [least, most];
}

function list(value: unknown, path: Path, least = 1): readonly unknown[] {
  if (Array.isArray(value) && value.length >= least) return value as unknown[];
  throw new SchemaError(path.join('.'), `it must be a list${least > 0 ? ' of at least one' : ''}`);
}

const isObject = (value: unknown): value is Schema => typeof value === 'object' && value !== null && !Array.isArray(value);
