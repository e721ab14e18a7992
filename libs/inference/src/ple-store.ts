import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Chunk, Manifest } from '@matfleet/model';
import { LRUCache } from 'lru-cache';
import { decodeRow, rowBytes, type PleRowFormat } from './ple-rows.js';

interface Plane {
  readonly format: PleRowFormat;
  readonly layers: readonly number[];
  /** Row ranges and the open files that hold them. */
  readonly files: { fromRow: number; toRow: number; fd: number; offset: number; id: string }[];
  readonly rows: LRUCache<number, Float32Array>;
}

/** Per-layer embeddings, read from disk one token's row at a time. At most `cacheRows` rows of each plane are held. */
export class PleStore {
  rowsRead = 0;
  cacheHits = 0;
  private readonly planes: Plane[];

  constructor(
    private readonly config: Manifest['config'],
    precision: Manifest['precision'],
    chunks: readonly Chunk[],
    storeDir: string,
    cacheRows: number,
  ) {
    const width = config.hiddenSizePerLayerInput;
    const bits = ({ fp32: 32, int8: 8, int4: 4 } as const)[precision.kind];
    const planes = new Map<string, Plane>();
    for (const { id, part, tensors } of chunks) {
      if (part.kind !== 'plane') continue;
      const tensor = tensors[0]!;
      const format = { layers: part.layers.length, width, bits, block: tensor.block ?? width };
      const key = part.layers.join(',');
      if (!planes.has(key)) planes.set(key, { format, layers: part.layers, files: [], rows: new LRUCache({ max: Math.max(1, cacheRows) }) });
      planes
        .get(key)!
        .files.push({ fromRow: part.fromRow, toRow: part.toRow, fd: openSync(join(storeDir, 'chunks', id), 'r'), offset: tensor.offset, id });
    }
    this.planes = [...planes.values()];
  }

  get rowsCached(): number {
    return this.planes.reduce((sum, plane) => sum + plane.rows.size, 0);
  }

  /** Scaled rows of these tokens for n layers, in the order given, (S, n, P). Ids without a row of their own (soft tokens) take row 0. */
  read(tokenIds: readonly number[], layers: readonly number[]): Float32Array {
    const P = this.config.hiddenSizePerLayerInput;
    const n = layers.length;
    const scale = Math.sqrt(P);
    const out = new Float32Array(tokenIds.length * n * P);
    for (const plane of this.planes) {
      const places = plane.layers.map((layer) => layers.indexOf(layer));
      if (places.every((place) => place < 0)) continue;
      tokenIds.forEach((id, s) => {
        const row = this.row(plane, id < this.config.vocabSizePerLayerInput ? id : 0);
        places.forEach((place, i) => {
          if (place < 0) return;
          const to = (s * n + place) * P;
          for (let p = 0; p < P; p++) out[to + p] = row[i * P + p]! * scale;
        });
      });
    }
    return out;
  }

  close(): void {
    for (const plane of this.planes) for (const { fd } of plane.files.splice(0)) closeSync(fd);
  }

  private row(plane: Plane, row: number): Float32Array {
    const cached = plane.rows.get(row);
    if (cached) {
      this.cacheHits++;
      return cached;
    }
    const file = plane.files.find(({ fromRow, toRow }) => row >= fromRow && row < toRow);
    if (!file) throw new Error(`no chunk holds row ${row} of the per-layer embeddings`);
    const bytes = new Uint8Array(rowBytes(plane.format));
    const read = readSync(file.fd, bytes, 0, bytes.length, file.offset + (row - file.fromRow) * bytes.length);
    if (read < bytes.length) throw new Error(`chunk ${file.id} ends inside row ${row} of the per-layer embeddings`);
    this.rowsRead++;
    const values = decodeRow(plane.format, bytes);
    plane.rows.set(row, values);
    return values;
  }
}
