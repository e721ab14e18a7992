import type { Grammar } from './grammar.js';

/** No text goes on from here. */
export const DEAD = -1;
const UNKNOWN = -2;
/** The empty stack: the text is complete. */
export const BOTTOM = 0;

/** Where a text can stand in a grammar: the places that wait for a byte, each with the places to come back to. */
export interface MachineState {
  /** Ids of stacks, ascending. */
  readonly stacks: readonly number[];
  /** The text may end here. */
  readonly complete: boolean;
  /** By byte: a state's id, DEAD or UNKNOWN. */
  readonly next: Int32Array;
}

/**
 * Steps through a grammar byte by byte. A state is a set of stacks, and both are kept once each: a step that was taken before is one look into a table.
 * Stacks share their tails, so a state costs what it adds.
 */
export class GrammarMachine {
  readonly states: MachineState[] = [];
  private readonly stateIds = new Map<string, number>();
  // A stack is a place on top of another stack; the arrays' first entry stands for BOTTOM.
  private readonly tops: number[] = [-1];
  private readonly below: number[] = [-1];
  private readonly stackIds = new Map<number, number>();
  /** Places after which a rule just ends: a call that comes back to one need not come back at all. */
  private readonly lastPlaces: readonly boolean[];
  readonly start: number;

  constructor(private readonly grammar: Grammar) {
    this.lastPlaces = grammar.nodes.map((_, at) => justEnds(grammar, at));
    this.start = this.stateAt([[grammar.start, BOTTOM]]);
  }

  topOf(stack: number): number {
    return this.tops[stack]!;
  }

  belowOf(stack: number): number {
    return this.below[stack]!;
  }

  /** The state of a text that stands at one place over nothing. */
  stateOfPlace(place: number): number {
    return this.stateAt([[place, BOTTOM]]);
  }

  /** The state in which a rule has ended that `stack` was under. */
  stateOfStack(stack: number): number {
    return this.stateAt([[this.tops[stack]!, this.below[stack]!]]);
  }

  step(state: number, byte: number): number {
    const { next, stacks } = this.states[state]!;
    const known = next[byte]!;
    if (known !== UNKNOWN) return known;
    const places: [number, number][] = [];
    for (const stack of stacks)
      for (const { low, high, to } of this.grammar.nodes[this.tops[stack]!]!.bytes)
        if (byte >= low && byte <= high) places.push([to, this.below[stack]!]);
    return (next[byte] = places.length === 0 ? DEAD : this.stateAt(places));
  }

  /** Follows everything that needs no byte. */
  private stateAt(places: [place: number, below: number][]): number {
    const seen = new Set<number>();
    const stacks = new Set<number>();
    let complete = false;
    for (let next = places.pop(); next; next = places.pop()) {
      const [place, below] = next;
      const key = keyOf(place, below);
      if (seen.has(key)) continue;
      seen.add(key);
      const { bytes, calls, free, end } = this.grammar.nodes[place]!;
      if (bytes.length > 0) stacks.add(this.stack(place, below));
      for (const to of free) places.push([to, below]);
      for (const { start, to } of calls) places.push([start, this.lastPlaces[to] ? below : this.stack(to, below)]);
      if (!end) continue;
      if (below === BOTTOM) complete = true;
      else places.push([this.tops[below]!, this.below[below]!]);
    }
    const sorted = [...stacks].sort((a, b) => a - b);
    const name = `${complete ? '.' : ''}${sorted.join()}`;
    const known = this.stateIds.get(name);
    if (known !== undefined) return known;
    this.states.push({ stacks: sorted, complete, next: new Int32Array(256).fill(UNKNOWN) });
    this.stateIds.set(name, this.states.length - 1);
    return this.states.length - 1;
  }

  private stack(place: number, below: number): number {
    const key = keyOf(place, below);
    const known = this.stackIds.get(key);
    if (known !== undefined) return known;
    this.tops.push(place);
    this.below.push(below);
    this.stackIds.set(key, this.tops.length - 1);
    return this.tops.length - 1;
  }
}

const keyOf = (place: number, below: number): number => below * 2 ** 20 + place;

function justEnds({ nodes }: Grammar, at: number, seen = new Set<number>()): boolean {
  if (seen.has(at)) return false;
  seen.add(at);
  const { bytes, calls, free, end } = nodes[at]!;
  if (bytes.length > 0 || calls.length > 0) return false;
  return free.length === 0 ? end : !end && free.length === 1 && justEnds({ nodes, start: 0 }, free[0]!, seen);
}
