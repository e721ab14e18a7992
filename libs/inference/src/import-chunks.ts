import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chunk, Part } from '@matfleet/model';
import type { Checkpoint } from './checkpoint.js';
import { ChunkWriter } from './chunk-writer.js';
import type { Encoded, Encoding } from './encode-piece.js';
import type { Encoders } from './encoders.js';
import { PLE_TABLE, planeHeader, type ChunkPlan, type PackagePlan, type TensorPlan } from './package-plan.js';

export { bandName } from './package-plan.js';

/** Published bytes that are read and encoded at a time: a few such pieces are all that an import holds. */
const PIECE_BYTES = 4 * 2 ** 20;
export const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'];

/** `done` of `total` bytes of the published tensors are written. */
type OnBytes = (done: number, total: number) => void;

/** Reads a checkpoint piece by piece and writes it as chunks: cut into bands and planes, quantised. */
export async function writeChunks(
  checkpoint: Checkpoint,
  plan: PackagePlan,
  encoders: Encoders,
  dir: string,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<Chunk[]> {
  const { config, tensors, stored } = checkpoint;
  const tables = [...new Set(plan.chunks.flatMap((chunk) => chunk.tensors.map(({ source }) => source)))];
  const total = [...tables, PLE_TABLE].reduce((sum, name) => sum + tensors.bytes(stored(name)), 0);
  let done = 0;
  const advance = (bytes: number): void => onBytes((done += bytes), total);
  onBytes(0, total);

  const encode = async ({ source, fromRow, toRow, encoding }: Piece): Promise<Encoded> => {
    signal?.throwIfAborted();
    return encoders.encode(await tensors.readRaw(stored(source), fromRow, toRow), encoding);
  };
  const valueBytes = (source: string): number => tensors.valueBytes(stored(source));
  const open = new OpenChunks(dir);
  try {
    const pieces = piecesOf(plan.chunks, (source) => tensors.bytes(stored(source)) / (tensors.shape(stored(source))[0] ?? 1));
    await writeMatrices(inOrder(pieces, encoders.width, encode), open, ({ piece }) => {
      const { fromColumn, toColumn } = piece.tensor;
      advance((piece.toRow - piece.fromRow) * (toColumn - fromColumn) * valueBytes(piece.source));
    });
    const planes = await writePlanes();
    const chunks = [...(await open.finished()), ...planes];
    for (const file of checkpoint.dir === undefined ? [] : TOKENIZER_FILES) {
      const bytes = await readFile(join(checkpoint.dir!, file)).catch(() => undefined);
      if (bytes && bytes.length > 0) chunks.push(await open.single({ kind: 'tokenizer', file }, bytes));
    }
    return chunks;
  } finally {
    await open.abandon();
  }

  /** All planes in one pass over the table. */
  async function writePlanes(): Promise<Chunk[]> {
    const V = config.vocabSizePerLayerInput;
    const bytesPerRow = tensors.bytes(stored(PLE_TABLE)) / V;
    const ends = [...new Set(plan.planes.flatMap(({ rowsPerChunk }) => endsOf(V, rowsPerChunk)))].sort((a, b) => a - b);
    const encoding: Encoding = { kind: 'planes', planes: plan.planes };
    const pieces = ends.flatMap((end, i) =>
      rowPieces(i === 0 ? 0 : ends[i - 1]!, end, bytesPerRow).map(([fromRow, toRow]) => ({ source: PLE_TABLE, fromRow, toRow, encoding })),
    );
    const chunks: Chunk[][] = plan.planes.map(() => []);
    const writers: (ChunkWriter | undefined)[] = plan.planes.map(() => undefined);
    for await (const { piece, encoded } of inOrder(pieces, encoders.width, encode)) {
      const { fromRow, toRow } = piece;
      for (const [p, plane] of plan.planes.entries()) {
        if (fromRow % plane.rowsPerChunk === 0) {
          const end = Math.min(V, fromRow + plane.rowsPerChunk);
          writers[p] = await open.create({ kind: 'plane', layers: [...plane.layers], fromRow, toRow: end });
          await writers[p]!.begin(planeHeader(plane, end - fromRow));
        }
        await writers[p]!.append(encoded.parts[p]!);
        if (toRow % plane.rowsPerChunk === 0 || toRow === V) chunks[p]!.push(await open.close(writers[p]!));
      }
      advance((toRow - fromRow) * bytesPerRow);
    }
    return chunks.flat();
  }
}

interface Piece {
  readonly source: string;
  readonly fromRow: number;
  readonly toRow: number;
  readonly encoding: Encoding;
}

interface MatrixPiece extends Piece {
  readonly chunk: ChunkPlan;
  readonly tensor: TensorPlan;
}

function* piecesOf(chunks: readonly ChunkPlan[], bytesPerRow: (source: string) => number): Generator<MatrixPiece> {
  for (const chunk of chunks)
    for (const tensor of chunk.tensors) {
      const { source, fromColumn, toColumn, quantization } = tensor;
      const encoding: Encoding = { kind: 'matrix', fromColumn, toColumn, ...(quantization && { quantization }) };
      for (const [fromRow, toRow] of rowPieces(tensor.fromRow, tensor.toRow, bytesPerRow(source)))
        yield { chunk, tensor, source, fromRow, toRow, encoding };
    }
}

type Done<P> = { piece: P; encoded: Encoded };

async function writeMatrices(pieces: AsyncIterable<Done<MatrixPiece>>, open: OpenChunks, onPiece: (done: Done<MatrixPiece>) => void): Promise<void> {
  let writer: ChunkWriter | undefined;
  let scales: Float32Array[] = [];
  for await (const done of pieces) {
    const { chunk, tensor, fromRow, toRow } = done.piece;
    const [values, scalesHeader] = tensor.headers;
    if (!writer) writer = await open.create(chunk.part);
    if (fromRow === tensor.fromRow) await writer.begin(values!);
    await writer.append(done.encoded.parts[0]!);
    if (done.encoded.scales) scales.push(done.encoded.scales);
    onPiece(done);
    if (toRow < tensor.toRow) continue;
    if (scalesHeader) {
      await writer.begin(scalesHeader);
      for (const part of scales.splice(0)) await writer.append(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
    }
    if (tensor === chunk.tensors.at(-1)) {
      await open.finishLater(writer);
      writer = undefined;
    }
  }
}

/** Chunks that are being written, and what becomes of them when an import fails. */
class OpenChunks {
  private readonly writing = new Set<ChunkWriter>();
  private readonly finishing: Promise<Chunk>[] = [];

  constructor(private readonly dir: string) {}

  async create(part: Part): Promise<ChunkWriter> {
    const writer = await ChunkWriter.create(this.dir, part);
    this.writing.add(writer);
    return writer;
  }

  async close(writer: ChunkWriter): Promise<Chunk> {
    const chunk = await writer.finish();
    this.writing.delete(writer);
    return chunk;
  }

  /** Lets the disk flush one chunk while the next is encoded. */
  async finishLater(writer: ChunkWriter): Promise<void> {
    await this.finishing.at(-1);
    const finishing = this.close(writer);
    finishing.catch(() => undefined);
    this.finishing.push(finishing);
  }

  finished(): Promise<Chunk[]> {
    return Promise.all(this.finishing);
  }

  async single(part: Part, bytes: Uint8Array): Promise<Chunk> {
    const writer = await this.create(part);
    await writer.append(bytes);
    return this.close(writer);
  }

  async abandon(): Promise<void> {
    await Promise.allSettled(this.finishing);
    await Promise.all([...this.writing].map((writer) => writer.abandon()));
  }
}

/** Works on `width` items at a time and gives the results in the items' order. */
async function* inOrder<P, R>(items: Iterable<P>, width: number, work: (item: P) => Promise<R>): AsyncGenerator<{ piece: P; encoded: R }> {
  const pending: Promise<{ piece: P; encoded: R }>[] = [];
  for (const piece of items) {
    const result = work(piece).then((encoded) => ({ piece, encoded }));
    result.catch(() => undefined);
    pending.push(result);
    if (pending.length >= width) yield await pending.shift()!;
  }
  for (const result of pending) yield await result;
}

function rowPieces(fromRow: number, toRow: number, bytesPerRow: number): [number, number][] {
  const rows = Math.max(1, Math.floor(PIECE_BYTES / bytesPerRow));
  const pieces: [number, number][] = [];
  for (let row = fromRow; row < toRow; row += rows) pieces.push([row, Math.min(toRow, row + rows)]);
  return pieces;
}

const endsOf = (rows: number, rowsPerChunk: number): number[] =>
  Array.from({ length: Math.ceil(rows / rowsPerChunk) }, (_, i) => Math.min(rows, (i + 1) * rowsPerChunk));
