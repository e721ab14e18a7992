/**
 * Tokens of a vocabulary, found by their UTF-8 bytes. Open addressing over typed arrays: 262,144 tokens cost 6 MB and a few dozen
 * milliseconds, where a Map of strings costs ten times as much.
 */
export class Vocabulary {
  /** One more than the largest id. */
  size = 0;
  private store = new Uint8Array(1 << 16); // all tokens, one after the other
  private stored = 0;
  private starts = new Int32Array(1 << 10).fill(-1); // by id: where in the store; -1 where there is no such id
  private lengths = new Int32Array(1 << 10);
  private slots = new Int32Array(1 << 11).fill(-1); // hash -> id, at most half full
  private count = 0;

  /** Adds `bytes[from, to)`. A later token of the same bytes takes over the earlier one's place. */
  add(id: number, bytes: Uint8Array, from = 0, to = bytes.length): void {
    if (id >= this.starts.length) this.growIds(id + 1);
    const length = to - from;
    if (this.stored + length > this.store.length) this.store = grown(this.store, this.stored + length, 0);
    this.store.set(bytes.subarray(from, to), this.stored);
    this.starts[id] = this.stored;
    this.lengths[id] = length;
    this.stored += length;
    this.size = Math.max(this.size, id + 1);
    const slot = this.probe(bytes, from, to);
    if (this.slots[slot]! < 0 && 2 * ++this.count > this.slots.length) this.rehash();
    this.slots[this.slots[slot]! < 0 ? this.probe(bytes, from, to) : slot] = id;
  }

  /** The id of `bytes[from, to)`, or -1. */
  find(bytes: Uint8Array, from = 0, to = bytes.length): number {
    return this.slots[this.probe(bytes, from, to)]!;
  }

  idOf(token: string): number | undefined {
    const id = this.find(encoder.encode(token));
    return id < 0 ? undefined : id;
  }

  /** The id of the token that is one token's bytes followed by another's, or -1. */
  findJoined(left: number, right: number): number {
    const [a, b] = [this.bytesOf(left), this.bytesOf(right)];
    const joined = new Uint8Array(a.length + b.length);
    joined.set(a);
    joined.set(b, a.length);
    return this.find(joined);
  }

  /** The token's text, or undefined where there is no such id. */
  textOf(id: number): string | undefined {
    return this.has(id) ? decoder.decode(this.bytesOf(id)) : undefined;
  }

  private has(id: number): boolean {
    return id >= 0 && id < this.size && this.starts[id]! >= 0;
  }

  /** A view. */
  private bytesOf(id: number): Uint8Array {
    return this.store.subarray(this.starts[id], this.starts[id]! + this.lengths[id]!);
  }

  /** The slot that holds these bytes, or the free one where they belong. */
  private probe(bytes: Uint8Array, from: number, to: number): number {
    let hash = 0x811c9dc5; // FNV-1a
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    const mask = this.slots.length - 1;
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (let id = this.slots[slot]!; id >= 0 && !this.equals(id, bytes, from, to); id = this.slots[slot]!) slot = (slot + 1) & mask;
    return slot;
  }

  private equals(id: number, bytes: Uint8Array, from: number, to: number): boolean {
    const length = to - from;
    if (this.lengths[id] !== length) return false;
    const start = this.starts[id]!;
    for (let i = 0; i < length; i++) if (this.store[start + i] !== bytes[from + i]) return false;
    return true;
  }

  private rehash(): void {
    const ids = this.slots.filter((id) => id >= 0);
    this.slots = new Int32Array(4 * this.slots.length).fill(-1);
    for (const id of ids) this.slots[this.probe(this.store, this.starts[id]!, this.starts[id]! + this.lengths[id]!)] = id;
  }

  private growIds(size: number): void {
    this.starts = grown(this.starts, size, -1);
    this.lengths = grown(this.lengths, size, 0);
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** A copy at least twice as long, the rest filled. */
function grown<T extends Uint8Array | Int32Array>(array: T, least: number, fill: number): T {
  const bigger = new (array.constructor as new (length: number) => T)(Math.max(least, 2 * array.length)).fill(fill) as T;
  bigger.set(array);
  return bigger;
}
