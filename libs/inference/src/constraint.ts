import type { Grammar } from './grammar.js';
import { DEAD, GrammarMachine } from './grammar-machine.js';
import { TokenMasks, type SharedLocals, type TokenMask } from './token-masks.js';
import type { TokenTrie } from './token-trie.js';

/** Holds one answer to a grammar. */
export interface Constraint {
  /** Whether the token may come next; without the cost of a mask. */
  allows(tokenId: number): boolean;
  /** All tokens that may come next. */
  mask(): TokenMask;
  /** Takes a token that was allowed. */
  accept(tokenId: number): void;
  /** Nothing may follow any more. */
  readonly ended: boolean;
}

/** What was learned of a grammar beyond this is forgotten before the next answer. */
const MOST_STATES = 4_096;

/** A grammar over one vocabulary; what an answer learns of it serves the next ones. */
export class ConstraintSource {
  private machine: GrammarMachine;
  private masks: TokenMasks;

  constructor(
    private readonly grammar: Grammar,
    private readonly trie: () => TokenTrie,
    private readonly bytesOf: (tokenId: number) => Uint8Array,
    /** Tokens that end an answer. */
    private readonly endIds: readonly number[],
    private readonly shared: SharedLocals = new WeakMap(),
  ) {
    this.machine = new GrammarMachine(grammar);
    this.masks = this.newMasks();
  }

  open(): Constraint {
    if (this.machine.states.length > MOST_STATES) {
      this.machine = new GrammarMachine(this.grammar);
      this.masks = this.newMasks();
    }
    const { machine, masks, bytesOf, endIds } = this;
    let state = machine.start;
    const after = (tokenId: number): number => {
      const bytes = bytesOf(tokenId);
      if (bytes.length === 0) return DEAD;
      let at = state;
      for (let i = 0; i < bytes.length && at !== DEAD; i++) at = machine.step(at, bytes[i]!);
      return at;
    };
    return {
      allows: (tokenId) => (endIds.includes(tokenId) ? machine.states[state]!.complete : after(tokenId) !== DEAD),
      mask: () => masks.maskOf(state),
      accept(tokenId) {
        const next = after(tokenId);
        if (next === DEAD) throw new Error(`token ${tokenId} does not fit the grammar`);
        state = next;
      },
      get ended() {
        const { stacks, complete } = machine.states[state]!;
        return complete && stacks.length === 0;
      },
    };
  }

  private newMasks(): TokenMasks {
    return new TokenMasks(this.grammar, this.machine, this.trie, this.shared, this.endIds);
  }
}
