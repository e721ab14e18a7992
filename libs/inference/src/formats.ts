import { ConstraintSource, type Constraint } from './constraint.js';
import type { Format } from './engine-api.js';
import { parseGrammar } from './gbnf.js';
import { characterExcept, choice, compileGrammar, optional, repeat, rule, sequence, type Grammar } from './grammar.js';
import { jsonSchemaGrammar } from './json-schema-grammar.js';
import type { SharedLocals } from './token-masks.js';
import { TokenTrie } from './token-trie.js';

const MOST_SOURCES = 8;

/** Turns the formats that answers ask for into constraints over one vocabulary, and keeps what was learned of the latest ones. */
export class Formats {
  private readonly sources = new Map<string, ConstraintSource>(); // in order of use
  private readonly shared: SharedLocals = new WeakMap();
  private trie: TokenTrie | undefined;

  constructor(
    private readonly vocabSize: number,
    private readonly bytesOf: (tokenId: number) => Uint8Array,
    private readonly endIds: readonly number[],
  ) {}

  /** Throws RangeError, naming the place, when the format cannot be kept to. */
  open(format: Format): Constraint {
    return this.source(format).open();
  }

  check(format: Format): void {
    this.source(format);
  }

  private source(format: Format): ConstraintSource {
    const key = JSON.stringify(format);
    const known = this.sources.get(key);
    this.sources.delete(key);
    const source =
      known ??
      new ConstraintSource(
        grammarOf(format),
        () => (this.trie ??= new TokenTrie(this.vocabSize, this.bytesOf)),
        this.bytesOf,
        this.endIds,
        this.shared,
      );
    this.sources.set(key, source);
    if (this.sources.size > MOST_SOURCES) this.sources.delete(this.sources.keys().next().value!);
    return source;
  }
}

const BRACE = [0x7b, 0x7b] as const;
/** Text that no reader takes for JSON. */
const freeText = optional(sequence(characterExcept(BRACE), repeat(characterExcept())));

function grammarOf(format: Format): Grammar {
  if ('grammar' in format) {
    const { root, rules } = parseGrammar(format.grammar);
    return compileGrammar(root, rules);
  }
  const { root, rules } = jsonSchemaGrammar(format.jsonSchema);
  return format.orText ? compileGrammar(choice(root, rule('free text')), new Map([...rules, ['free text', freeText]])) : compileGrammar(root, rules);
}
