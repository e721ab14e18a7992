import { character, characterExcept, choice, literal, repeat, rule, sequence, type Expression, type Range } from './grammar.js';

const MOST_CHARACTERS = 65_536;
const MOST_REPEATS = 1_000;

/**
 * A grammar in the notation of llama.cpp: `root ::= "yes" | "no" name*`, with literals, character classes, `.`, groups, `* + ? {m,n}` and `#` comments.
 * Throws RangeError with the line where it goes wrong.
 */
export function parseGrammar(text: string): { readonly root: Expression; readonly rules: ReadonlyMap<string, Expression> } {
  if (text.length > MOST_CHARACTERS) throw new RangeError(`the grammar has ${text.length} characters; the most is ${MOST_CHARACTERS}`);
  const rules = new Map<string, Expression>();
  let at = 0;

  const wrong = (what: string): RangeError => new RangeError(`grammar, line ${text.slice(0, at).split('\n').length}: ${what}`);
  const skip = (newlines: boolean): void => {
    at += /^(?:[ \t]|#[^\n]*)*/.exec(text.slice(at))![0].length;
    if (newlines && (text[at] === '\n' || text[at] === '\r')) {
      at += 1;
      skip(true);
    }
  };
  const take = (pattern: RegExp): string | undefined => {
    const found = pattern.exec(text.slice(at))?.[0];
    at += found?.length ?? 0;
    return found;
  };

  const alternatives = (inGroup: boolean): Expression => {
    const parts = [items(inGroup)];
    for (skip(inGroup); take(/^\|/) !== undefined; skip(inGroup)) {
      skip(true);
      parts.push(items(inGroup));
    }
    return parts.length === 1 ? parts[0]! : choice(...parts);
  };

  const items = (inGroup: boolean): Expression => {
    const parts: Expression[] = [];
    for (;;) {
      skip(inGroup);
      const item = single();
      if (!item) return sequence(...parts);
      parts.push(repeated(item));
    }
  };

  const single = (): Expression | undefined => {
    if (take(/^"/) !== undefined) {
      let out = '';
      while (text[at] !== '"') out += String.fromCodePoint(codePoint('a literal'));
      at += 1;
      return literal(out);
    }
    if (take(/^\[/) !== undefined) {
      const not = take(/^\^/) !== undefined;
      const ranges: Range[] = [];
      while (text[at] !== ']') {
        const low = codePoint('a character class');
        const high = /^-[^\]]/.test(text.slice(at)) ? (at++, codePoint('a character class')) : low;
        if (high < low) throw wrong('a range of characters runs backwards');
        ranges.push([low, high]);
      }
      at += 1;
      return not ? characterExcept(...ranges) : character(...ranges);
    }
    if (take(/^\./) !== undefined) return characterExcept();
    if (take(/^\(/) !== undefined) {
      const inner = alternatives(true);
      skip(true);
      if (take(/^\)/) === undefined) throw wrong('a group is not closed');
      return inner;
    }
    const name = take(/^[A-Za-z][A-Za-z0-9_-]*(?![A-Za-z0-9_-]|[ \t]*::=)/);
    return name === undefined ? undefined : rule(name);
  };

  const repeated = (item: Expression): Expression => {
    const mark = take(/^(?:[*+?]|\{\d+(?:,\d*)?\})/);
    if (mark === undefined) return item;
    if (mark === '*') return repeat(item);
    if (mark === '+') return repeat(item, 1);
    if (mark === '?') return repeat(item, 0, 1);
    const [least, most] = mark.slice(1, -1).split(',');
    const bounds = [Number(least), most === undefined ? Number(least) : most === '' ? Infinity : Number(most)] as const;
    if (bounds[0] > MOST_REPEATS || (bounds[1] > MOST_REPEATS && bounds[1] !== Infinity) || bounds[1] < bounds[0])
      throw wrong(`${mark} is no repetition of up to ${MOST_REPEATS}`);
    return repeat(item, ...bounds);
  };

  /** One character, written out or as an escape. */
  const codePoint = (where: string): number => {
    const escaped = take(/^\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[nrt\\"[\]^-])/);
    if (escaped !== undefined) {
      const simple = { n: 10, r: 13, t: 9 }[escaped[1]!];
      return simple ?? (escaped.length > 2 ? parseInt(escaped.slice(2), 16) : escaped.codePointAt(1)!);
    }
    const code = text.codePointAt(at);
    if (code === undefined || code === 10) throw wrong(`${where} is not closed`);
    if (code === 0x5c) throw wrong(`${JSON.stringify(text.slice(at, at + 2))} is no escape`);
    at += code > 0xffff ? 2 : 1;
    return code;
  };

  for (skip(true); at < text.length; skip(true)) {
    const name = take(/^[A-Za-z][A-Za-z0-9_-]*/);
    skip(false);
    if (name === undefined || take(/^::=/) === undefined) throw wrong('a rule is expected: name ::= …');
    if (rules.has(name)) throw wrong(`rule ${name} is there already`);
    skip(true);
    rules.set(name, alternatives(false));
    skip(false);
    if (at < text.length && text[at] !== '\n' && text[at] !== '\r') throw wrong(`${JSON.stringify(text[at])} is out of place`);
  }
  if (!rules.has('root')) throw new RangeError('the grammar has no rule "root"');
  return { root: rule('root'), rules };
}
