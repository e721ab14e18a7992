import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { MAPPED_FROM_BYTES, type Chunk, type Manifest, type ModelConfig } from '@matfleet/model';
import type { ExternalPlace, GraphBuilder, Value } from './graph-builder.js';
import { KERNELS, type Kernels } from './kernels.js';
import type { Prepared } from './prepared.js';
import { dequantize, type Bits } from './quantize.js';

type TensorEntry = Chunk['tensors'][number];

interface Stored {
  readonly chunkId: string;
  readonly tensor: TensorEntry;
}

interface Matrix {
  readonly N: number;
  readonly K: number;
  readonly block?: number;
  readonly bits?: Bits;
}

/** A quantised matrix, or several joined, that ONNX Runtime packs when it loads a graph. */
export interface PackedProduct {
  readonly name: string;
  readonly bytes: number;
  /** Width of what it multiplies. */
  readonly K: number;
  /** x (…, K) -> (…, N); with the matrix from `place` where given. */
  multiply(g: GraphBuilder, x: Value, place?: ExternalPlace): Value;
}

export interface WeightOptions {
  /** Matrices from this size on stay in their chunks and are mapped; smaller ones are copied into the graph and may be joined. */
  readonly mappedFromBytes?: number;
  /** How quantised products are computed: `int8` rounds activations too, `float32` does not; by default as `roundsActivations` says. */
  readonly activations?: 'int8' | 'float32';
  /** Packed matrices to use instead of packing them anew. */
  readonly prepared?: Prepared;
  /** Replace quantised matrices by the float32 ones they stand for. */
  readonly dequantized?: boolean;
  /** What the products run on; by default the CPU's. */
  readonly kernels?: Kernels;
  /** Told of each product instead of building it: the graph itself is of no use then. */
  readonly onProduct?: (product: PackedProduct) => void;
}

/** MatMulNBits' accuracy levels. */
const LEVEL = { float32: 1, int8: 4 };
const ROUNDED_FROM_HIDDEN = 1024;

/** Whether quantised products round activations to 8 bits by default: only in wide models, which gain most. */
export const roundsActivations = ({ config, precision }: Pick<Manifest, 'config' | 'precision'>): boolean =>
  precision.kind !== 'fp32' && config.hiddenSize >= ROUNDED_FROM_HIDDEN;

/** Weights of a package as graph values. Knows where they lie and how they are quantised; the forward pass does not. */
export class Weights {
  private readonly stored = new Map<string, Stored>();
  private readonly files = new Map<string, number>();
  private readonly config: ModelConfig;
  private readonly bits: Bits;
  private readonly kernels: Kernels;

  constructor(
    private readonly manifest: Manifest,
    chunks: readonly Chunk[],
    private readonly storeDir: string,
    private readonly options: WeightOptions = {},
  ) {
    for (const chunk of chunks)
      if (chunk.part.kind !== 'plane') for (const tensor of chunk.tensors) this.stored.set(tensor.name, { chunkId: chunk.id, tensor });
    this.config = manifest.config;
    this.bits = manifest.precision.kind === 'int4' ? 4 : 8;
    this.kernels = options.kernels ?? KERNELS.cpu;
  }

  /** Whether any weight had to stay outside the graph file. */
  usesExternalData = false;

  /** Float32 values of an unquantised tensor. */
  values(name: string): Float32Array {
    const { chunkId, tensor } = this.find(name);
    if (tensor.dtype !== 'float32') throw new Error(`tensor ${name} in chunk ${chunkId} is ${tensor.dtype}, not float32`);
    const bytes = this.bytes({ chunkId, tensor });
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }

  /** x (…, K) -> (…, N): the product with the transposed matrix. */
  linear(g: GraphBuilder, x: Value, name: string): Value {
    return this.rows(g, x, [name]);
  }

  /** x (…, K) -> (…, ΣN): several matrices over the same input, one below the other. */
  rows(g: GraphBuilder, x: Value, names: readonly string[]): Value {
    const first = this.matrix(names[0]!);
    // One product instead of several saves time at every token. Quantised matrices are packed into a form of their own anyway.
    const together = first.block === undefined ? this.joinable(names) : names.every((name) => this.matrix(name).block === first.block);
    if (!together) {
      const parts = names.map((name) => this.product(g, x, name));
      return parts.length === 1 ? parts[0]! : g.op('Concat', parts, { axis: -1 });
    }
    const N = names.reduce((sum, name) => sum + this.matrix(name).N, 0);
    if (names.length === 1) return this.product(g, x, names[0]!);
    const label = names.join('+');
    if (!first.block || this.options.dequantized)
      return this.dense(g, x, label, N, first.K, concatFloats(names.map((name) => this.dequantized(name))));
    const values = (): Uint8Array => concatBytes(names.map((name) => this.bytes(this.find(name))));
    const scales = concatFloats(names.map((name) => this.values(`${name}.scales`)));
    return this.quantized(g, x, label, { ...first, N }, values, scales);
  }

  /** Bands of one matrix along its input: xs are the pieces of the input, the result is the sum of the pieces' products. */
  columns(g: GraphBuilder, xs: readonly Value[], names: readonly string[]): Value {
    return xs.map((x, i) => this.product(g, x, names[i]!)).reduce((sum, y) => g.op('Add', [sum, y]));
  }

  /** Like `columns`, over one joined input; only where `joinable`. */
  joinedColumns(g: GraphBuilder, x: Value, names: readonly string[]): Value {
    if (names.length === 1) return this.product(g, x, names[0]!);
    const parts = names.map((name) => this.matrix(name));
    const N = parts[0]!.N;
    const K = parts.reduce((sum, part) => sum + part.K, 0);
    const label = names.join('+');
    const { block } = parts[0]!;
    if (!block || this.options.dequantized || parts.some((part) => part.block !== block))
      return this.dense(
        g,
        x,
        label,
        N,
        K,
        interleave(
          names.map((name) => this.dequantized(name)),
          N,
          Float32Array,
        ),
      );
    const values = (): Uint8Array =>
      interleave(
        names.map((name) => this.bytes(this.find(name))),
        N,
        Uint8Array,
      );
    const scales = interleave(
      names.map((name) => this.values(`${name}.scales`)),
      N,
      Float32Array,
    );
    return this.quantized(g, x, label, { N, K, block, bits: this.bits }, values, scales);
  }

  /** Whether these matrices are small enough to be joined inside the graph. */
  joinable(names: readonly string[]): boolean {
    const first = this.matrix(names[0]!);
    return names.every(
      (name) => this.find(name).tensor.bytes < (this.options.mappedFromBytes ?? MAPPED_FROM_BYTES) && this.matrix(name).block === first.block,
    );
  }

  close(): void {
    for (const fd of this.files.values()) closeSync(fd);
    this.files.clear();
  }

  private product(g: GraphBuilder, x: Value, name: string): Value {
    const matrix = this.matrix(name);
    const entry = this.find(name);
    if (matrix.block && this.options.dequantized) return this.dense(g, x, name, matrix.N, matrix.K, this.dequantized(name));
    if (entry.tensor.bytes < (this.options.mappedFromBytes ?? MAPPED_FROM_BYTES)) {
      if (!matrix.block) return this.dense(g, x, name, matrix.N, matrix.K, this.values(name));
      return this.quantized(g, x, name, matrix, () => this.bytes(entry), this.values(`${name}.scales`));
    }
    if (!matrix.block) {
      const weight = this.external(g, name);
      return this.kernels.transposedProducts
        ? g.contrib('FusedMatMul', [x, weight], { transB: 1 })
        : g.op('MatMul', [x, g.op('Transpose', [weight], { perm: [1, 0] })]);
    }
    const scales = (to: GraphBuilder): Value => this.external(to, `${name}.scales`);
    return this.packed(g, x, name, matrix, entry.tensor.shape, (to) => this.external(to, name), scales);
  }

  private dense(g: GraphBuilder, x: Value, name: string, N: number, K: number, values: Float32Array): Value {
    return timesTransposed(g, this.kernels, x, name, [N, K], values);
  }

  private quantized(g: GraphBuilder, x: Value, name: string, matrix: Matrix, values: () => Uint8Array, scales: Float32Array): Value {
    if (matrix.bits === 8 && this.activations === 'float32' && !this.kernels.bytesTimesFloats)
      return this.options.onProduct ? x : this.twoHalves(g, x, name, matrix, values(), scales);
    const shape = [matrix.N, Math.ceil(matrix.K / matrix.block!), (matrix.block! * matrix.bits!) / 8];
    const weight = (to: GraphBuilder): Value => this.preparedTensor(to, name, shape) ?? to.bytesConstant(name, shape, values());
    return this.packed(g, x, name, matrix, shape, weight, (to) => to.floats(`${name}.scales`, [scales.length], scales));
  }

  private packed(
    g: GraphBuilder,
    x: Value,
    name: string,
    matrix: Matrix,
    shape: number[],
    weight: (to: GraphBuilder) => Value,
    scales: (to: GraphBuilder) => Value,
  ): Value {
    const multiply = (to: GraphBuilder, by: Value, place?: ExternalPlace): Value =>
      this.matMulNBits(to, by, place ? to.external(name, 'uint8', shape, place) : weight(to), scales(to), matrix);
    if (!this.options.onProduct) return multiply(g, x);
    const bytes = shape.reduce((product, size) => product * size, 1);
    this.options.onProduct({ name, bytes, K: matrix.K, multiply });
    return x;
  }

  private matMulNBits(g: GraphBuilder, x: Value, weight: Value, scales: Value, { N, K, block, bits }: Matrix, zeroPoints?: Value): Value {
    const inputs = zeroPoints === undefined ? [x, weight, scales] : [x, weight, scales, zeroPoints];
    return g.contrib('MatMulNBits', inputs, { K, N, bits: bits!, block_size: block!, accuracy_level: LEVEL[this.activations] });
  }

  /**
   * ONNX Runtime has no fast 8-bit product with float32 activations, but a 4-bit one: a byte is 16 · high + low, so the high halves (zero at 8)
   * and the low halves (zero at 0) are two 4-bit matrices of the same total size, one below the other.
   */
  private twoHalves(g: GraphBuilder, x: Value, name: string, matrix: Matrix, values: Uint8Array, scales: Float32Array): Value {
    const [N, blocks, block] = [matrix.N, Math.ceil(matrix.K / matrix.block!), matrix.block!];
    const halves = new Uint8Array(values.length);
    const low = values.length / 2;
    for (let i = 0; i < low; i++) {
      const [even, odd] = [values[2 * i]!, values[2 * i + 1]!];
      halves[i] = (even >> 4) | (odd & 0xf0);
      halves[low + i] = (even & 0x0f) | ((odd & 0x0f) << 4);
    }
    const zeroBytes = N * Math.ceil(blocks / 2);
    const zeros = new Uint8Array(2 * zeroBytes).fill(0x88, 0, zeroBytes);
    const both = this.matMulNBits(
      g,
      x,
      g.bytesConstant(`${name}/halves`, [2 * N, blocks, block / 2], halves),
      g.floats(`${name}/halves.scales`, [2 * scales.length], concatFloats([scales.map((s) => s * 16), scales])),
      { N: 2 * N, K: matrix.K, block, bits: 4 },
      g.bytesConstant(`${name}/halves.zeros`, [zeros.length], zeros),
    );
    const [y, rest] = g.ops('Split', [both, g.ints(N, N)], 2, { axis: -1 }) as [Value, Value];
    return g.op('Add', [y, rest]);
  }

  private get activations(): 'int8' | 'float32' {
    const rounds = this.kernels.roundsActivations && roundsActivations(this.manifest);
    return this.options.activations ?? (rounds ? 'int8' : 'float32');
  }

  private external(g: GraphBuilder, name: string): Value {
    const { chunkId, tensor } = this.find(name);
    const prepared = this.preparedTensor(g, name, tensor.shape);
    if (prepared !== undefined) return prepared;
    this.usesExternalData = true;
    const place = { location: `chunks/${chunkId}`, offset: tensor.offset, bytes: tensor.bytes };
    return g.external(name, tensor.dtype === 'uint8' ? 'uint8' : 'float32', tensor.shape, place);
  }

  /** The packed form of a quantised matrix, or of several joined, where there is one. */
  private preparedTensor(g: GraphBuilder, name: string, shape: number[]): Value | undefined {
    const { prepared } = this.options;
    const place = prepared?.tensors.get(name);
    if (!prepared || !place) return undefined;
    this.usesExternalData = true;
    return g.external(name, 'uint8', shape, { location: prepared.file, ...place });
  }

  /** N and K of a stored matrix; K may end inside the last block. */
  private matrix(name: string): Matrix {
    const { tensor } = this.find(name);
    if (tensor.block === undefined) return { N: tensor.shape[0]!, K: tensor.shape[1]! };
    const padded = tensor.shape[1]! * tensor.block;
    const K = name.includes('mlp.down_proj') ? padded : inputWidth(this.config, name);
    return { N: tensor.shape[0]!, K, block: tensor.block, bits: ((tensor.shape[2]! * 8) / tensor.block) as Bits };
  }

  private dequantized(name: string): Float32Array {
    const { N, K, block, bits } = this.matrix(name);
    if (!block) return this.values(name);
    return dequantize({ values: this.bytes(this.find(name)), scales: this.values(`${name}.scales`) }, N, K, bits!, block);
  }

  private find(name: string): Stored {
    const stored = this.stored.get(name);
    if (!stored) throw new Error(`tensor ${name} is in none of the slice's chunks`);
    return stored;
  }

  private bytes({ chunkId, tensor }: Stored): Uint8Array {
    let fd = this.files.get(chunkId);
    if (fd === undefined) this.files.set(chunkId, (fd = openSync(join(this.storeDir, 'chunks', chunkId), 'r')));
    const bytes = new Uint8Array(tensor.bytes);
    const read = readSync(fd, bytes, 0, bytes.length, tensor.offset);
    if (read < bytes.length) throw new Error(`chunk ${chunkId} ends inside tensor ${tensor.name}: ${read} of ${bytes.length} bytes`);
    return bytes;
  }
}

/** x (…, K) -> (…, N): the product with the transposed matrix [N, K], whose values go into the graph. */
export function timesTransposed(g: GraphBuilder, kernels: Kernels, x: Value, name: string, [N, K]: [number, number], values: Float32Array): Value {
  if (kernels.transposedProducts) return g.contrib('FusedMatMul', [x, g.floats(name, [N, K], values)], { transB: 1 });
  const columns = new Float32Array(values.length);
  for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) columns[k * N + n] = values[n * K + k]!;
  return g.op('MatMul', [x, g.floats(`${name}/transposed`, [K, N], columns)]);
}

/** Width of the vectors that a matrix takes. FFN down-projections are cut in whole blocks and not asked for here. */
function inputWidth(config: ModelConfig, name: string): number {
  if (name.includes('laurel.linear_right')) return config.laurelRank;
  if (name.includes('per_layer_projection.weight')) return config.hiddenSizePerLayerInput;
  if (name.includes('self_attn.o_proj')) return config.numAttentionHeads * config.headDim;
  return config.hiddenSize;
}

function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function concatFloats(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Joins matrices of N rows side by side. */
function interleave<T extends Float32Array | Uint8Array>(parts: readonly T[], N: number, Type: new (length: number) => T): T {
  const width = parts.reduce((sum, part) => sum + part.length / N, 0);
  const out = new Type(N * width);
  let at = 0;
  for (const part of parts) {
    const columns = part.length / N;
    for (let row = 0; row < N; row++) out.set(part.subarray(row * columns, (row + 1) * columns), row * width + at);
    at += columns;
  }
  return out;
}
