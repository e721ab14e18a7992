import type { Vocabulary } from './tokenizer-vocabulary.js';

/**
 * Byte-pair encoding with byte fallback: the `BPE` model of the Hugging Face `tokenizers` crate, as Gemma configures it (no dropout, no affixes).
 *
 * Why not a library: `@huggingface/tokenizers` 0.2.0 gives the same ids, but needs 3 s and 360 MB to start with Gemma's 514,906 merges, which it keeps as JSON
 * strings, and has no switch to leave special tokens in user text alone. Here a merge is a row of an open-addressed table of integers.
 */
export class Bpe {
  private readonly byteIds: Int32Array; // id of <0xNN>, or -1
  private readonly pairs: PairTable;

  /** `merges` are ids by rank: [l0, r0, l1, r1, …]. `unkId` stands for characters that have not even byte tokens. */
  constructor(
    private readonly vocabulary: Vocabulary,
    merges: Int32Array,
    private readonly unkId: number | undefined,
  ) {
    this.byteIds = Int32Array.from({ length: 256 }, (_, byte) => vocabulary.idOf(bytePiece(byte)) ?? -1);
    this.pairs = new PairTable(merges.length / 2);
    for (let rank = 0; 2 * rank < merges.length; rank++) this.pairs.add(merges[2 * rank]!, merges[2 * rank + 1]!, rank);
  }

  /** Ids of already normalised text, appended to `out`. O(n log n) in the number of characters. */
  encodeInto(text: string, out: number[]): void {
    const symbols = this.characters(text);
    const count = symbols.length;
    if (count < 2) {
      out.push(...symbols);
      return;
    }
    const id = Int32Array.from(symbols);
    const next = new Int32Array(count);
    const previous = new Int32Array(count);
    for (let i = 0; i < count; i++) {
      next[i] = i + 1 < count ? i + 1 : -1;
      previous[i] = i - 1;
    }
    // Every merge removes a symbol and offers at most two new pairs, so 3 n entries are enough.
    const queue = new MergeQueue(3 * count);
    const offer = (at: number): void => {
      const row = this.pairs.find(id[at]!, id[next[at]!]!);
      if (row >= 0) queue.push(this.pairs.rank[row]!, at, this.mergedId(row));
    };
    for (let i = 0; i + 1 < count; i++) offer(i);

    while (queue.size > 0) {
      const { at, merged } = queue.pop();
      const right = next[at]!;
      if (id[at]! < 0 || right < 0) continue;
      // The crate's test for a stale entry: the pair now standing here must still make the token that was queued.
      const row = this.pairs.find(id[at]!, id[right]!);
      if (row < 0 || this.mergedId(row) !== merged) continue;
      id[at] = merged;
      id[right] = -1;
      next[at] = next[right]!;
      if (next[at]! >= 0) previous[next[at]!] = at;
      if (previous[at]! >= 0) offer(previous[at]!);
      if (next[at]! >= 0) offer(at);
    }
    for (let i = 0; i >= 0; i = next[i]!) out.push(id[i]!);
  }

  /** One id per character; a character outside the vocabulary becomes its UTF-8 bytes, or else one <unk> for a run of such characters. */
  private characters(text: string): number[] {
    const bytes = utf8.encode(text);
    const out: number[] = [];
    for (let from = 0; from < bytes.length;) {
      const to = from + characterLength(bytes[from]!);
      const id = this.vocabulary.find(bytes, from, to);
      if (id >= 0) out.push(id);
      else if (bytes.subarray(from, to).every((byte) => this.byteIds[byte]! >= 0)) for (let i = from; i < to; i++) out.push(this.byteIds[bytes[i]!]!);
      else if (this.unkId !== undefined && out.at(-1) !== this.unkId) out.push(this.unkId);
      from = to;
    }
    return out;
  }

  /** The token a merge makes; looked up on first use, because most of half a million merges are never needed. */
  private mergedId(row: number): number {
    const known = this.pairs.merged[row]!;
    if (known >= 0) return known;
    const [left, right] = [this.pairs.left[row]!, this.pairs.right[row]!];
    const id = this.vocabulary.findJoined(left, right);
    if (id < 0) {
      const piece = `${this.vocabulary.textOf(left)}${this.vocabulary.textOf(right)}`;
      throw new Error(`tokenizer.json: merge ${this.pairs.rank[row]} makes ${JSON.stringify(piece)}, which is not in the vocabulary`);
    }
    return (this.pairs.merged[row] = id);
  }
}

const utf8 = new TextEncoder();
const bytePiece = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;

/** The value of a byte token such as `<0x0A>`, else undefined. */
export const byteOf = (piece: string): number | undefined => (/^<0x[0-9A-F]{2}>$/.test(piece) ? parseInt(piece.slice(3, 5), 16) : undefined);

/** Bytes of the UTF-8 character that this byte starts. */
const characterLength = (lead: number): number => (lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4);

/** (left id, right id) → merge, open addressing at half load. */
class PairTable {
  readonly left: Int32Array;
  readonly right: Int32Array;
  readonly rank: Int32Array; // -1 marks an empty row
  readonly merged: Int32Array; // -1 until first used
  private readonly mask: number;

  constructor(count: number) {
    const rows = 2 ** Math.ceil(Math.log2(Math.max(2, 2 * count)));
    this.mask = rows - 1;
    this.left = new Int32Array(rows);
    this.right = new Int32Array(rows);
    this.rank = new Int32Array(rows).fill(-1);
    this.merged = new Int32Array(rows).fill(-1);
  }

  add(left: number, right: number, rank: number): void {
    const row = this.probe(left, right);
    this.left[row] = left;
    this.right[row] = right;
    this.rank[row] = rank;
  }

  /** The row of a pair, or -1. */
  find(left: number, right: number): number {
    const row = this.probe(left, right);
    return this.rank[row]! < 0 ? -1 : row;
  }

  private probe(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    let row = hash & this.mask;
    while (this.rank[row]! >= 0 && (this.left[row] !== left || this.right[row] !== right)) row = (row + 1) & this.mask;
    return row;
  }
}

/** Binary heap of candidate merges: lowest rank first, then leftmost. */
class MergeQueue {
  size = 0;
  private readonly key: Float64Array; // rank · 2^32 + position: exact below 2^53
  private readonly merged: Int32Array;

  constructor(capacity: number) {
    this.key = new Float64Array(capacity);
    this.merged = new Int32Array(capacity);
  }

  push(rank: number, at: number, merged: number): void {
    const key = rank * 2 ** 32 + at;
    let hole = this.size++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (this.key[parent]! <= key) break;
      this.move(parent, hole);
      hole = parent;
    }
    this.key[hole] = key;
    this.merged[hole] = merged;
  }

  pop(): { at: number; merged: number } {
    const top = { at: this.key[0]! % 2 ** 32, merged: this.merged[0]! };
    const last = --this.size;
    const key = this.key[last]!;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= last) break;
      if (child + 1 < last && this.key[child + 1]! < this.key[child]!) child++;
      if (this.key[child]! >= key) break;
      this.move(child, hole);
      hole = child;
    }
    this.move(last, hole);
    return top;
  }

  private move(from: number, to: number): void {
    this.key[to] = this.key[from]!;
    this.merged[to] = this.merged[from]!;
  }
}
