import { character, characterExcept, choice, literal, optional, repeat, rule, sequence, type Expression } from './grammar.js';

// JSON as text: what a value of any shape looks like.

const digit = character([0x30, 0x39]);
const digit19 = character([0x31, 0x39]);
const hex = character([0x30, 0x39], [0x41, 0x46], [0x61, 0x66]);
const one = (characters: string): Expression => character(...[...characters].map((c) => [c.codePointAt(0)!, c.codePointAt(0)!] as const));
export const digits = (least: number, most: number): Expression => repeat(digit, least, most);

/** As little as JSON.stringify puts between two parts, with or without indentation; bounded, so that no answer is filled with it. */
export const space = optional(choice(literal(' '), sequence(literal('\n'), repeat(literal(' '), 0, 40))));

/** No control characters; half of a surrogate pair is no character. */
const escape = sequence(
  literal('\\'),
  choice(
    one('"\\/bfnrt'),
    sequence(literal('u'), choice(sequence(choice(digit, one('abcefABCEF')), hex, hex, hex), sequence(one('dD'), character([0x30, 0x37]), hex, hex))),
  ),
);
const CONTROL = [0x00, 0x1f] as const;
const QUOTE = [0x22, 0x22] as const;
const BACKSLASH = [0x5c, 0x5c] as const;
const stringCharacter = choice(characterExcept(CONTROL, QUOTE, BACKSLASH), escape);

export const stringOf = (least = 0, most = Infinity): Expression => sequence(literal('"'), repeat(stringCharacter, least, most), literal('"'));

/** A string without escapes that is none of `taken`. */
export function otherKey(taken: readonly string[]): Expression {
  const plain = (...not: readonly number[]): Expression =>
    characterExcept(CONTROL, QUOTE, BACKSLASH, ...[...new Set(not)].map((code) => [code, code] as const));
  const after = (keys: readonly string[]): Expression => {
    const byFirst = new Map<number, string[]>();
    for (const key of keys)
      if (key !== '') {
        const first = key.codePointAt(0)!;
        byFirst.set(first, [...(byFirst.get(first) ?? []), key.slice(String.fromCodePoint(first).length)]);
      }
    return choice(
      ...(keys.includes('') ? [] : [literal('"')]),
      sequence(plain(...byFirst.keys()), repeat(plain()), literal('"')),
      ...[...byFirst].map(([first, rest]) => sequence(character([first, first]), after(rest))),
    );
  };
  return sequence(literal('"'), after(taken));
}

/** No number that a double cannot hold: at most 21 digits before the point, and exponents to ±307. */
export const number = sequence(
  optional(literal('-')),
  choice(
    sequence(choice(literal('0'), sequence(digit19, digits(0, 20))), optional(sequence(literal('.'), digits(1, 20)))),
    sequence(
      digit19,
      optional(sequence(literal('.'), digits(1, 20))),
      one('eE'),
      optional(one('+-')),
      choice(digits(1, 2), sequence(one('12'), digit, digit), sequence(literal('30'), character([0x30, 0x37]))),
    ),
  ),
);

/** The whole numbers of a double, which run to 15 digits without a gap. */
export const MOST_INTEGER = 999_999_999_999_999;

export function integerBetween(low: number, high: number): Expression {
  const negative = low < 0 ? [sequence(literal('-'), naturalBetween(Math.max(1, -high), -low))] : [];
  const positive = high >= 0 ? [naturalBetween(Math.max(0, low), high)] : [];
  return choice(...negative, ...positive);
}

function naturalBetween(low: number, high: number): Expression {
  const parts: Expression[] = [];
  for (let length = String(low).length; length <= String(high).length; length++) {
    const least = Math.max(low, length === 1 ? 0 : 10 ** (length - 1));
    parts.push(sameLength(String(least), String(Math.min(high, 10 ** length - 1))));
  }
  return choice(...parts);
}

/** Numbers of as many digits as both have. */
function sameLength(low: string, high: string): Expression {
  if (low === '') return literal('');
  const [a, b, rest] = [Number(low[0]), Number(high[0]), low.length - 1];
  if (a === b) return sequence(literal(low[0]!), sameLength(low.slice(1), high.slice(1)));
  if (/^0*$/.test(low.slice(1)) && /^9*$/.test(high.slice(1))) return sequence(character([0x30 + a, 0x30 + b]), digits(rest, rest));
  return choice(
    sequence(literal(low[0]!), sameLength(low.slice(1), '9'.repeat(rest))),
    ...(b - a > 1 ? [sequence(character([0x31 + a, 0x2f + b]), digits(rest, rest))] : []),
    sequence(literal(high[0]!), sameLength('0'.repeat(rest), high.slice(1))),
  );
}

const listOf = (item: Expression): Expression => sequence(item, repeat(sequence(literal(','), space, item)));

/** The rules `value` and `object` of any JSON. */
export const anyJson: ReadonlyMap<string, Expression> = new Map([
  ['value', choice(rule('object'), rule('array'), rule('string'), number, literal('true'), literal('false'), literal('null'))],
  ['object', sequence(literal('{'), space, optional(sequence(listOf(rule('member')), space)), literal('}'))],
  ['member', sequence(rule('string'), literal(':'), space, rule('value'))],
  ['array', sequence(literal('['), space, optional(sequence(listOf(rule('value')), space)), literal(']'))],
  ['string', stringOf()],
]);
