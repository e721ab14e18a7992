import type { Chunk, Manifest } from '@matfleet/model';
import { decodeLayer, rowBytes, type PleRowFormat } from './ple-rows.js';
import { RowTable, type RowRange, type RowTableStats } from './row-table.js';

interface Plane {
  readonly format: PleRowFormat;
  readonly layers: readonly number[];
  readonly ranges: RowRange[];
}

/** Per-layer embeddings, read from disk by token: one row of each plane. */
export class PleStore {
  private readonly planes: (Plane & { readonly table: RowTable })[] = [];
  /** Bytes of one row of every plane. */
  static rowBytes(manifest: Pick<Manifest, 'config' | 'precision'>, chunks: readonly Chunk[]): number {
    return planesIn(manifest, chunks).reduce((sum, { format }) => sum + rowBytes(format), 0);
  }

  /** Keeps `cachedRows` rows of each plane in memory. Throws where a plane's chunk is too short or a row is in none. */
  constructor(
    private readonly manifest: Pick<Manifest, 'config' | 'precision'>,
    chunks: readonly Chunk[],
    storeDir: string,
    cachedRows: number,
  ) {
    const rows = manifest.config.vocabSizePerLayerInput;
    try {
      for (const plane of planesIn(manifest, chunks)) {
        const name = `the per-layer embeddings of layers ${plane.layers.join(', ')}`;
        this.planes.push({ ...plane, table: new RowTable(name, rows, plane.ranges, storeDir, cachedRows) });
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get rowsCached(): number {
    return this.planes.reduce((sum, { table }) => sum + table.cache.size, 0);
  }

  /** Room of the cache, whether filled or not. */
  get cacheBytes(): number {
    return this.planes.reduce((sum, { table }) => sum + table.cache.bytes, 0);
  }

  /** Of all planes together. */
  get stats(): Readonly<RowTableStats> {
    const sum = (of: (stats: RowTableStats) => number): number => this.planes.reduce((total, { table }) => total + of(table.stats), 0);
    return {
      rowsRead: sum(({ rowsRead }) => rowsRead),
      cacheHits: sum(({ cacheHits }) => cacheHits),
      reads: sum(({ reads }) => reads),
      readMs: sum(({ readMs }) => readMs),
      readMsMax: Math.max(0, ...this.planes.map(({ table }) => table.stats.readMsMax)),
    };
  }

  /** Scaled rows of these tokens for n layers, in the order given, (S, n, P). Ids without a row of their own (soft tokens) take row 0. */
  async read(tokenIds: readonly number[], layers: readonly number[]): Promise<Float32Array> {
    const { hiddenSizePerLayerInput: P, vocabSizePerLayerInput: V } = this.manifest.config;
    const n = layers.length;
    const scale = Math.sqrt(P);
    const out = new Float32Array(tokenIds.length * n * P);
    for (const layer of layers)
      if (!this.planes.some((plane) => plane.layers.includes(layer))) throw new Error(`no chunk holds the per-layer embeddings of layer ${layer}`);
    const rows = tokenIds.map((id) => (id < V ? id : 0));
    await Promise.all(
      this.planes.map(({ format, layers: own, table }) => {
        const places = own.map((layer) => layers.indexOf(layer));
        if (places.every((place) => place < 0)) return undefined;
        return table.read(rows, (bytes, s) =>
          places.forEach((place, i) => {
            if (place >= 0) decodeLayer(format, bytes, i, scale, out, (s * n + place) * P);
          }),
        );
      }),
    );
    return out;
  }

  close(): void {
    for (const { table } of this.planes.splice(0)) table.close();
  }
}

function planesIn({ config, precision }: Pick<Manifest, 'config' | 'precision'>, chunks: readonly Chunk[]): Plane[] {
  const width = config.hiddenSizePerLayerInput;
  const bits = ({ fp32: 32, int8: 8, int4: 4 } as const)[precision.kind];
  const planes = new Map<string, Plane>();
  for (const { id, part, tensors } of chunks) {
    if (part.kind !== 'plane') continue;
    const tensor = tensors[0]!;
    const key = part.layers.join(',');
    let plane = planes.get(key);
    if (!plane) {
      const format = { layers: part.layers.length, width, bits, block: tensor.block ?? width };
      planes.set(key, (plane = { format, layers: part.layers, ranges: [] }));
    }
    const bytes = rowBytes(plane.format);
    plane.ranges.push({ fromRow: part.fromRow, toRow: part.toRow, chunk: id, pieces: [{ offset: tensor.offset, stride: bytes, bytes }] });
  }
  return [...planes.values()];
}
