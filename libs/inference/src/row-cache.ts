import { LRUCache } from 'lru-cache';

/** The rows used last, as bytes, in one block that never grows. */
export class RowCache {
  private readonly block: Uint8Array;
  /** Row to its place in the block. */
  private readonly places: LRUCache<number, number> | undefined;

  /** Takes `rowBytes` * `most` bytes; with `most` 0 it keeps nothing. */
  constructor(
    private readonly rowBytes: number,
    private readonly most: number,
  ) {
    this.block = new Uint8Array(rowBytes * most);
    // Throws for a bound of 0.
    if (most > 0) this.places = new LRUCache({ max: most });
  }

  get size(): number {
    return this.places?.size ?? 0;
  }

  get bytes(): number {
    return this.block.length;
  }

  /** A view that the next `set` may overwrite. */
  get(row: number): Uint8Array | undefined {
    const place = this.places?.get(row);
    return place === undefined ? undefined : this.block.subarray(place * this.rowBytes, (place + 1) * this.rowBytes);
  }

  set(row: number, bytes: Uint8Array): void {
    if (!this.places || this.places.has(row)) return;
    const place = this.places.size < this.most ? this.places.size : this.places.pop()!;
    this.block.set(bytes, place * this.rowBytes);
    this.places.set(row, place);
  }
}
