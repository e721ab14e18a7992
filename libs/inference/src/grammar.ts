import { utf8Ranges } from './utf8-ranges.js';

/** What a text may look like. Built by the functions below, compiled by `compileGrammar`. */
export type Expression =
  | { readonly kind: 'literal'; readonly bytes: Uint8Array }
  /** One character out of inclusive ranges of code points. */
  | { readonly kind: 'character'; readonly ranges: readonly Range[] }
  | { readonly kind: 'sequence' | 'choice'; readonly parts: readonly Expression[] }
  | { readonly kind: 'repeat'; readonly part: Expression; readonly least: number; readonly most: number }
  | { readonly kind: 'rule'; readonly name: string };

export type Range = readonly [low: number, high: number];

export const literal = (text: string): Expression => ({ kind: 'literal', bytes: utf8.encode(text) });
export const character = (...ranges: Range[]): Expression => ({ kind: 'character', ranges });
export const sequence = (...parts: Expression[]): Expression => ({ kind: 'sequence', parts });
export const choice = (...parts: Expression[]): Expression => ({ kind: 'choice', parts });
export const repeat = (part: Expression, least = 0, most = Infinity): Expression => ({ kind: 'repeat', part, least, most });
export const optional = (part: Expression): Expression => repeat(part, 0, 1);
export const rule = (name: string): Expression => ({ kind: 'rule', name });

/** Every character but those in `ranges`. */
export function characterExcept(...ranges: Range[]): Expression {
  const out: Range[] = [];
  let from = 0;
  for (const [low, high] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (low > from) out.push([from, low - 1]);
    from = Math.max(from, high + 1);
  }
  if (from <= 0x10ffff) out.push([from, 0x10ffff]);
  return character(...out);
}

/** A place in a rule. Calls come back to `to` once the rule they name has ended. */
export interface GrammarNode {
  readonly bytes: { readonly low: number; readonly high: number; readonly to: number }[];
  readonly calls: { readonly start: number; readonly to: number }[];
  readonly free: number[];
  end: boolean;
  /** The how-manieth place of a rule that calls no other: wherever the same expression is used, what follows here is the same. */
  readonly origin: { readonly rule: Expression; readonly ordinal: number } | undefined;
}

/** A recursive transition network over bytes. */
export interface Grammar {
  readonly nodes: readonly GrammarNode[];
  readonly start: number;
}

const MAX_NODES = 100_000;

/** Throws RangeError where a rule is missing, calls itself before it has read a byte, or the network grows beyond its bound. */
export function compileGrammar(root: Expression, rules: ReadonlyMap<string, Expression>): Grammar {
  const nodes: GrammarNode[] = [];
  const starts = new Map<string, number>();
  const wanted: string[] = [];
  let closed: Expression | undefined;
  let ordinal = 0;

  const node = (): number => {
    if (nodes.length >= MAX_NODES) throw new RangeError(`the grammar is too large: more than ${MAX_NODES} places`);
    nodes.push({ bytes: [], calls: [], free: [], end: false, origin: closed && { rule: closed, ordinal: ordinal++ } });
    return nodes.length - 1;
  };
  const startOf = (name: string): number => {
    const known = starts.get(name);
    if (known !== undefined) return known;
    if (!rules.has(name)) throw new RangeError(`the grammar has no rule ${JSON.stringify(name)}`);
    const start = node();
    starts.set(name, start);
    wanted.push(name);
    return start;
  };

  /** Lays `expression` from `from` on; the place after it. */
  const lay = (expression: Expression, from: number): number => {
    switch (expression.kind) {
      case 'literal':
        return expression.bytes.reduce((at, byte) => step(at, byte, byte), from);
      case 'character': {
        const to = node();
        for (const [low, high] of expression.ranges)
          for (const bytes of utf8Ranges(low, high)) {
            let at = from;
            bytes.forEach(([least, most], index) => {
              const next = index === bytes.length - 1 ? to : node();
              nodes[at]!.bytes.push({ low: least, high: most, to: next });
              at = next;
            });
          }
        return to;
      }
      case 'sequence':
        return expression.parts.reduce((at, part) => lay(part, at), from);
      case 'choice': {
        const to = node();
        for (const part of expression.parts) {
          const branch = node();
          nodes[from]!.free.push(branch);
          nodes[lay(part, branch)]!.free.push(to);
        }
        return to;
      }
      case 'repeat': {
        let at = from;
        for (let count = 0; count < expression.least; count++) at = lay(expression.part, at);
        const to = node();
        if (expression.most === Infinity) {
          const loop = node();
          nodes[at]!.free.push(loop);
          nodes[lay(expression.part, loop)]!.free.push(loop);
          nodes[loop]!.free.push(to);
          return to;
        }
        for (let count = expression.least; count < expression.most; count++) {
          nodes[at]!.free.push(to);
          at = lay(expression.part, at);
        }
        nodes[at]!.free.push(to);
        return to;
      }
      case 'rule': {
        const to = node();
        nodes[from]!.calls.push({ start: startOf(expression.name), to });
        return to;
      }
    }
  };
  const step = (from: number, low: number, high: number): number => {
    const to = node();
    nodes[from]!.bytes.push({ low, high, to });
    return to;
  };

  const start = node();
  nodes[lay(root, start)]!.end = true;
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const expression = rules.get(name)!;
    [closed, ordinal] = [callsOthers(expression) ? undefined : expression, 0];
    nodes[lay(expression, starts.get(name)!)]!.end = true;
  }
  for (const [name, from] of starts)
    if (callsItself(nodes, from)) throw new RangeError(`rule ${JSON.stringify(name)} calls itself before it has read anything`);
  return { nodes, start };
}

function callsOthers(expression: Expression): boolean {
  switch (expression.kind) {
    case 'rule':
      return true;
    case 'repeat':
      return callsOthers(expression.part);
    case 'sequence':
    case 'choice':
      return expression.parts.some(callsOthers);
    default:
      return false;
  }
}

/** Whether a rule can be reached from its own start without reading a byte. What may be empty in between counts as read nothing. */
function callsItself(nodes: readonly GrammarNode[], start: number): boolean {
  const seen = new Set<number>();
  const places = [start];
  for (let at = places.pop(); at !== undefined; at = places.pop()) {
    const { calls, free } = nodes[at]!;
    for (const call of calls) {
      if (call.start === start) return true;
      if (!seen.has(call.start)) places.push(call.start);
      seen.add(call.start);
      if (canBeEmpty(nodes, call.start, new Set()) && !seen.has(call.to)) {
        seen.add(call.to);
        places.push(call.to);
      }
    }
    for (const to of free)
      if (!seen.has(to)) {
        seen.add(to);
        places.push(to);
      }
  }
  return false;
}

function canBeEmpty(nodes: readonly GrammarNode[], at: number, seen: Set<number>): boolean {
  if (seen.has(at)) return false;
  seen.add(at);
  const { end, free, calls } = nodes[at]!;
  return (
    end ||
    free.some((to) => canBeEmpty(nodes, to, seen)) ||
    calls.some(({ start, to }) => canBeEmpty(nodes, start, seen) && canBeEmpty(nodes, to, seen))
  );
}

const utf8 = new TextEncoder();
