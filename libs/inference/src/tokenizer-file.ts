import { Vocabulary } from './tokenizer-vocabulary.js';

/** A `tokenizer.json`, its two big tables already indexed. */
export interface TokenizerFile {
  /** The file without the content of `model.vocab` and `model.merges`. */
  readonly json: Record<string, unknown>;
  readonly vocabulary: Vocabulary;
  /** Ids of left and right part by rank: [l0, r0, l1, r1, …]. */
  readonly merges: Int32Array;
}

/**
 * Reads the file's bytes. Gemma's has 33 MB, nearly all of it 262,144 tokens and 514,906 merges. Those two tables are scanned where they lie,
 * and JSON.parse gets the rest: over the whole it would make two million strings and arrays.
 */
export function readTokenizerFile(bytes: Uint8Array): TokenizerFile {
  const scanner = new Scanner(bytes);
  const vocabulary = new Vocabulary();
  const vocabStart = scanner.enter('vocab', '{', 0);
  scanner.items('}', () => {
    const token = scanner.string();
    scanner.expect(':');
    vocabulary.add(scanner.wholeNumber(), token.bytes, token.from, token.to);
  });
  const vocabEnd = scanner.at;

  const mergesStart = scanner.enter('merges', '[', vocabEnd);
  const merges: number[] = [];
  const part = (bytes: Uint8Array, from: number, to: number): void => {
    const id = vocabulary.find(bytes, from, to);
    if (id < 0)
      throw new Error(
        `tokenizer.json: merge ${merges.length >> 1} joins ${JSON.stringify(utf8.decode(bytes.subarray(from, to)))}, which is not in the vocabulary`,
      );
    merges.push(id);
  };
  scanner.items(']', () => {
    // Newer files write ["left", "right"], older ones "left right".
    const isPair = scanner.skip('[');
    const first = scanner.string();
    if (isPair) {
      scanner.expect(',');
      const second = scanner.string();
      scanner.expect(']');
      part(first.bytes, first.from, first.to);
      part(second.bytes, second.from, second.to);
    } else {
      const blank = first.bytes.indexOf(BLANK, first.from);
      if (blank < 0 || blank >= first.to) throw new Error(`tokenizer.json: merge ${merges.length >> 1} has no blank between its two parts`);
      part(first.bytes, first.from, blank);
      part(first.bytes, blank + 1, first.to);
    }
  });

  const rest = `${utf8.decode(bytes.subarray(0, vocabStart))}{}${utf8.decode(bytes.subarray(vocabEnd, mergesStart))}[]${utf8.decode(bytes.subarray(scanner.at))}`;
  return { json: JSON.parse(rest) as Record<string, unknown>, vocabulary, merges: Int32Array.from(merges) };
}

const utf8 = new TextDecoder();
const BLANK = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** The bytes [from, to) of a string's content. */
interface Span {
  readonly bytes: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/** Just enough of a JSON reader for a table of strings and whole numbers. */
class Scanner {
  at = 0;

  constructor(private readonly bytes: Uint8Array) {}

  /** Goes to the value of `key`, which must open with `bracket`; returns where the value begins. A token's text cannot be taken for a key: no colon follows it. */
  enter(key: string, bracket: string, from: number): number {
    const quoted = Buffer.from(`"${key}"`);
    const view = Buffer.from(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    for (let found = view.indexOf(quoted, from); found >= 0; found = view.indexOf(quoted, found + 1)) {
      this.at = found + quoted.length;
      if (!this.skip(':') || this.peek() !== bracket.charCodeAt(0)) continue;
      const start = this.at;
      this.expect(bracket);
      return start;
    }
    throw new Error(`tokenizer.json: model.${key} is missing, or does not open with ${bracket}`);
  }

  /** Calls `item` at each item up to the closing bracket. */
  items(close: string, item: () => void): void {
    if (this.skip(close)) return;
    do item();
    while (this.skip(','));
    this.expect(close);
  }

  string(): Span {
    this.expect('"');
    const from = this.at;
    let escaped = false;
    for (let byte = this.bytes[this.at]; byte !== QUOTE; byte = this.bytes[++this.at]) {
      if (byte === undefined) throw new Error('tokenizer.json ends inside a string');
      if (byte === BACKSLASH) {
        escaped = true;
        this.at++;
      }
    }
    const to = this.at++;
    if (!escaped) return { bytes: this.bytes, from, to };
    const bytes = Buffer.from(JSON.parse(utf8.decode(this.bytes.subarray(from - 1, to + 1))) as string);
    return { bytes, from: 0, to: bytes.length };
  }

  wholeNumber(): number {
    let [value, digits] = [0, 0];
    for (let byte = this.peek()! - 0x30; byte >= 0 && byte <= 9; byte = this.bytes[++this.at]! - 0x30, digits++) value = 10 * value + byte;
    if (digits === 0 || digits > 9) this.fail('a whole number');
    return value;
  }

  /** Skips the character if it comes next, blanks before it included. */
  skip(character: string): boolean {
    if (this.peek() !== character.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  expect(character: string): void {
    if (!this.skip(character)) this.fail(JSON.stringify(character));
  }

  /** The next byte that is not blank; undefined at the end. */
  peek(): number | undefined {
    while (this.bytes[this.at]! <= BLANK) this.at++;
    return this.bytes[this.at];
  }

  private fail(expected: string): never {
    throw new Error(`tokenizer.json: expected ${expected} at byte ${this.at} of ${this.bytes.length}`);
  }
}
