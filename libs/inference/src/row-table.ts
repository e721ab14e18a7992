import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { RowCache } from './row-cache.js';

/** Rows [fromRow, toRow) in one chunk. A row lies there in one piece or, like values and their scales, in several. */
export interface RowRange {
  readonly fromRow: number;
  readonly toRow: number;
  readonly chunk: string;
  /** Row r: `bytes` bytes from `offset` + (r - fromRow) * `stride` on. */
  readonly pieces: readonly { readonly offset: number; readonly stride: number; readonly bytes: number }[];
}

export interface RowTableStats {
  /** Rows that came from a chunk. */
  rowsRead: number;
  /** Rows asked for that came from memory, or with the same row of the same call. */
  cacheHits: number;
  /** Calls that had to read, and what those took: all together and the longest. */
  reads: number;
  readMs: number;
  readMsMax: number;
}

type OpenRange = RowRange & { readonly fd: number };

const readAsync = promisify(read);

/** A row that took no longer lay in the page cache. */
const AT_HAND_MS = 0.05;
/** Rows that are read side by side after one that had to wait, before another is tried alone. */
const ROWS_SIDE_BY_SIDE = 32;
/** Of those, at the same time; the runtime's file threads bound it too. */
const ROWS_IN_FLIGHT = 16;

/** A table of equal rows that stays on disk and is read by row; the rows used last are kept, undecoded. */
export class RowTable {
  readonly stats: RowTableStats = { rowsRead: 0, cacheHits: 0, reads: 0, readMs: 0, readMsMax: 0 };
  readonly cache: RowCache;
  private readonly ranges: OpenRange[] = [];
  private readonly rowBytes: number;

  /** `name` is what errors call it. Throws where one of its `rows` is in no chunk, or a chunk is shorter than its rows. */
  constructor(
    private readonly name: string,
    rows: number,
    ranges: readonly RowRange[],
    storeDir: string,
    cachedRows: number,
  ) {
    this.rowBytes = rowBytesOf(ranges);
    this.cache = new RowCache(this.rowBytes, Math.min(cachedRows, rows));
    try {
      let next = 0;
      for (const range of [...ranges].sort((a, b) => a.fromRow - b.fromRow)) {
        if (range.fromRow > next) throw this.absent(next, range.fromRow);
        this.open(range, storeDir);
        next = range.toRow;
      }
      if (next < rows) throw this.absent(next, rows);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Gives `use` the bytes of every row with its place in `rows`, in any order; they are valid during that call alone. Rows that are not in
   * memory are read in their order on disk: one after another while the page cache has them, which is faster than to ask other threads, and
   * side by side after one that had to wait for the disk.
   */
  async read(rows: readonly number[], use: (bytes: Uint8Array, place: number) => void): Promise<void> {
    const missing = new Map<number, number[]>();
    rows.forEach((row, place) => {
      const places = missing.get(row);
      const bytes = places ? undefined : this.cache.get(row);
      if (bytes) use(bytes, place);
      if (places) places.push(place);
      else if (!bytes) missing.set(row, [place]);
    });
    this.stats.cacheHits += rows.length - missing.size;
    if (missing.size === 0) return;
    const started = performance.now();
    const arrived = (row: number, bytes: Uint8Array): void => {
      this.stats.rowsRead++;
      for (const place of missing.get(row)!) use(bytes, place);
      this.cache.set(row, bytes);
    };
    const inOrder = [...missing.keys()].sort((a, b) => a - b);
    const into = new Uint8Array(this.rowBytes);
    for (let next = 0; next < inOrder.length;) {
      const row = inOrder[next++]!;
      const since = performance.now();
      this.readNow(into, row);
      const atHand = performance.now() - since <= AT_HAND_MS;
      arrived(row, into);
      if (!atHand) await this.readSideBySide(inOrder.slice(next, (next += ROWS_SIDE_BY_SIDE)), arrived);
    }
    const ms = performance.now() - started;
    this.stats.reads++;
    this.stats.readMs += ms;
    this.stats.readMsMax = Math.max(this.stats.readMsMax, ms);
  }

  close(): void {
    for (const { fd } of this.ranges.splice(0)) closeSync(fd);
  }

  private open(range: RowRange, storeDir: string): void {
    const fd = openSync(join(storeDir, 'chunks', range.chunk), 'r');
    this.ranges.push({ ...range, fd });
    const { size } = fstatSync(fd);
    const whole = Math.min(...range.pieces.map(({ offset, stride, bytes }) => Math.max(0, Math.floor((size - offset - bytes) / stride) + 1)));
    if (whole < range.toRow - range.fromRow)
      throw new Error(
        `chunk ${range.chunk} ends inside row ${range.fromRow + whole} of ${this.name}: ${size} bytes do not hold rows ${range.fromRow} to ${range.toRow - 1}`,
      );
  }

  private readNow(into: Uint8Array, row: number): void {
    const range = this.rangeOf(row);
    let at = 0;
    for (const { offset, stride, bytes } of range.pieces) {
      let got: number;
      try {
        got = readSync(range.fd, into, at, bytes, offset + (row - range.fromRow) * stride);
      } catch (cause) {
        throw this.unreadable(range, row, cause);
      }
      if (got < bytes) throw this.cutOff(range, row, got, bytes);
      at += bytes;
    }
  }

  /** Settles when no read is under way any more, also after a failure, so that the files may be closed. */
  private async readSideBySide(rows: readonly number[], arrived: (row: number, bytes: Uint8Array) => void): Promise<void> {
    let next = 0;
    let failed = false;
    const lane = async (): Promise<void> => {
      const into = new Uint8Array(this.rowBytes);
      while (next < rows.length && !failed) {
        const row = rows[next++]!;
        try {
          await this.readInto(into, row);
          arrived(row, into);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    const ended = await Promise.allSettled(Array.from({ length: Math.min(ROWS_IN_FLIGHT, rows.length) }, lane));
    for (const lane of ended) if (lane.status === 'rejected') throw lane.reason;
  }

  private async readInto(into: Uint8Array, row: number): Promise<void> {
    const range = this.rangeOf(row);
    let at = 0;
    for (const { offset, stride, bytes } of range.pieces) {
      const { bytesRead } = await readAsync(range.fd, into, at, bytes, offset + (row - range.fromRow) * stride).catch((cause: unknown) => {
        throw this.unreadable(range, row, cause);
      });
      if (bytesRead < bytes) throw this.cutOff(range, row, bytesRead, bytes);
      at += bytes;
    }
  }

  private rangeOf(row: number): OpenRange {
    const range = this.ranges.find(({ fromRow, toRow }) => row >= fromRow && row < toRow);
    if (!range) throw this.absent(row, row + 1);
    return range;
  }

  private readonly absent = (from: number, to: number): Error =>
    new Error(`no chunk holds ${to - from === 1 ? `row ${from}` : `rows ${from} to ${to - 1}`} of ${this.name}`);
  private readonly cutOff = ({ chunk }: RowRange, row: number, got: number, bytes: number): Error =>
    new Error(`chunk ${chunk} ends inside row ${row} of ${this.name}: ${got} of ${bytes} bytes`);
  private readonly unreadable = ({ chunk }: RowRange, row: number, cause: unknown): Error =>
    new Error(`chunk ${chunk}: row ${row} of ${this.name} could not be read: ${(cause as Error).message}`, { cause });
}

/** Bytes of a row, all pieces together. */
export const rowBytesOf = (ranges: readonly RowRange[]): number => ranges[0]?.pieces.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0;
