import { BOTTOM, DEAD, type GrammarMachine } from './grammar-machine.js';
import type { Expression, Grammar } from './grammar.js';
import type { TokenTrie } from './token-trie.js';

/** One bit per token id, 32 in a word. */
export type TokenMask = Uint32Array;

export const isAllowed = (mask: TokenMask, id: number): boolean => ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;

/** What follows from one place, whatever rule it was called by. */
export interface Local {
  /** Tokens that the rule reads to their last byte: few of them by name, many of them as a mask. */
  readonly tokens: Int32Array | TokenMask;
  /** Nodes of the trie at which the rule can have ended, with more bytes to come. */
  readonly exits: readonly number[];
}

/** What was learned of rules that other grammars of the same vocabulary have too, such as that of a string. */
export type SharedLocals = WeakMap<Expression, Map<number, Local>>;

const MOST_MASKS = 256;
const FEW = 512;

/**
 * Which tokens may follow in a state. A place is walked through the vocabulary once; what its rule leaves unread goes on in the rule that called it.
 * Inside a string, most of the vocabulary is known from that one walk, and only tokens that close the string are looked at again.
 */
export class TokenMasks {
  private readonly locals = new Map<number, Local>();
  private readonly masks = new Map<number, TokenMask>(); // in order of use
  private readonly path: number[] = [];

  constructor(
    private readonly grammar: Grammar,
    private readonly machine: GrammarMachine,
    /** Made when it is first asked for: most answers never need a mask. */
    private readonly trieOf: () => TokenTrie,
    private readonly shared: SharedLocals,
    private readonly endIds: readonly number[],
  ) {}

  private get trie(): TokenTrie {
    return this.trieOf();
  }

  /** Tokens whose every byte the grammar can read from `state` on, and those that end an answer where the text may end. Kept; not to be changed. */
  maskOf(state: number): TokenMask {
    const known = this.masks.get(state);
    this.masks.delete(state);
    const mask = known ?? this.compute(state);
    this.masks.set(state, mask);
    if (this.masks.size > MOST_MASKS) this.masks.delete(this.masks.keys().next().value!);
    return mask;
  }

  private compute(state: number): TokenMask {
    const { stacks, complete } = this.machine.states[state]!;
    const mask: TokenMask = new Uint32Array(Math.ceil(this.trie.vocabSize / 32));
    for (const stack of stacks) {
      const { tokens, exits } = this.localOf(this.machine.topOf(stack));
      if (tokens instanceof Uint32Array) for (let word = 0; word < mask.length; word++) mask[word]! |= tokens[word]!;
      else for (const id of tokens) set(mask, id);
      const below = this.machine.belowOf(stack);
      if (below === BOTTOM || exits.length === 0) continue;
      const after = this.machine.stateOfStack(below);
      for (const exit of exits) this.walk(exit, after, (id) => set(mask, id));
    }
    if (complete) for (const id of this.endIds) set(mask, id);
    return mask;
  }

  private localOf(place: number): Local {
    const { origin } = this.grammar.nodes[place]!;
    const [locals, key] = origin ? [this.sharedOf(origin.rule), origin.ordinal] : [this.locals, place];
    const known = locals.get(key);
    if (known) return known;
    const ids: number[] = [];
    const exits: number[] = [];
    this.walk(
      0,
      this.machine.stateOfPlace(place),
      (id) => ids.push(id),
      (node) => exits.push(node),
    );
    const tokens: Local['tokens'] = ids.length <= FEW ? Int32Array.from(ids) : new Uint32Array(Math.ceil(this.trie.vocabSize / 32));
    if (tokens instanceof Uint32Array) for (const id of ids) set(tokens, id);
    const local = { tokens, exits };
    locals.set(key, local);
    return local;
  }

  private sharedOf(rule: Expression): Map<number, Local> {
    const known = this.shared.get(rule) ?? new Map<number, Local>();
    this.shared.set(rule, known);
    return known;
  }

  /** Reads all that is below a node, from `state` on. `onExit`: where the grammar's bottom was reached and tokens go on. */
  private walk(from: number, state: number, onToken: (id: number) => void, onExit?: (node: number) => void): void {
    const { trie, machine, path } = this;
    const { bytes, depths, ends, tokens, siblings } = trie;
    path[depths[from]!] = state;
    const last = ends[from]!;
    for (let node = from + 1; node < last;) {
      const depth = depths[node]!;
      const next = machine.step(path[depth - 1]!, bytes[node]!);
      if (next === DEAD) {
        node = ends[node]!;
        continue;
      }
      path[depth] = next;
      for (let id = tokens[node]!; id >= 0; id = siblings[id]!) onToken(id);
      if (onExit && ends[node]! > node + 1 && machine.states[next]!.complete) onExit(node);
      node++;
    }
  }
}

const set = (mask: TokenMask, id: number): void => {
  mask[id >>> 5]! |= 1 << (id & 31);
};
