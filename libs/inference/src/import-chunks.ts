import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kvSource, type Chunk, type Manifest, type Part } from '@matfleet/model';
import type { Checkpoint } from './checkpoint.js';
import { ChunkWriter } from './chunk-writer.js';
import type { ImportProgress } from './engine-api.js';
import { encodeRow, rowBytes, type PleRowFormat } from './ple-rows.js';
import { blockFor, quantize, type Bits } from './quantize.js';

type Precision = Manifest['precision'];

export interface ChunkPlan {
  readonly precision: Precision;
  /** Per layer, the widths at which its FFN is cut. */
  readonly bandEdges: readonly (readonly number[])[];
  readonly planes: readonly (readonly number[])[];
}

/** Longest piece of a table held in memory at once, and of the embedding planes in one chunk. */
const PIECE_BYTES = 16 * 2 ** 20;
const PLANE_CHUNK_BYTES = 256 * 2 ** 20;
const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'];

const bitsOf = (precision: Precision): Bits | undefined => (precision.kind === 'fp32' ? undefined : precision.kind === 'int8' ? 8 : 4);

/** Reads the checkpoint tensor by tensor and writes it as chunks: cut into bands and planes, quantised. */
export async function writeChunks(
  checkpoint: Checkpoint,
  plan: ChunkPlan,
  dir: string,
  onProgress: (p: ImportProgress) => void,
  signal?: AbortSignal,
): Promise<Chunk[]> {
  const { config, tensors, stored } = checkpoint;
  const D = config.hiddenSize;
  const P = config.hiddenSizePerLayerInput;
  const chunks: Chunk[] = [];
  const bits = bitsOf(plan.precision);
  const requested = plan.precision.block ?? 0;

  const chunk = async (part: Part, fill: (writer: ChunkWriter) => Promise<void>): Promise<void> => {
    signal?.throwIfAborted();
    const writer = await ChunkWriter.create(dir, part);
    try {
      await fill(writer);
      chunks.push(await writer.finish());
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  };
  const vector = async (writer: ChunkWriter, name: string): Promise<void> =>
    writer.add({ name, dtype: 'float32', shape: [...tensors.shape(stored(name))] }, await tensors.read(stored(name)));
  const matrix = async (writer: ChunkWriter, name: string, values: Float32Array, N: number, K: number, exact = false): Promise<void> => {
    const block = bits && blockFor(requested, K, exact);
    if (!bits || !block) return writer.add({ name, dtype: 'float32', shape: [N, K] }, values);
    const packed = quantize(values, N, K, bits, block);
    const blocks = packed.scales.length / N;
    await writer.add({ name, dtype: 'uint8', shape: [N, blocks, (block * bits) / 8], block }, packed.values);
    await writer.add({ name: `${name}.scales`, dtype: 'float32', shape: [N * blocks] }, packed.scales);
  };
  const whole = async (writer: ChunkWriter, name: string): Promise<void> => {
    const [N, K] = tensors.shape(stored(name)) as [number, number];
    await matrix(writer, name, await tensors.read(stored(name)), N, K);
  };

  // The token embedding is the largest single matrix: quantised in pieces of rows.
  await chunk({ kind: 'core' }, async (writer) => {
    const name = 'embed_tokens.weight';
    const V = config.vocabSize;
    const block = bits && blockFor(requested, D);
    const rowsPerPiece = Math.max(1, Math.floor(PIECE_BYTES / (D * 4)));
    const blocks = block ? Math.ceil(D / block) : 0;
    const scales = new Float32Array(V * blocks);
    const bytesPerRow = block ? (blocks * block * bits!) / 8 : D * 4;
    const shape = block ? [V, blocks, (block * bits!) / 8] : [V, D];
    await writer.begin({ name, dtype: block ? 'uint8' : 'float32', shape, bytes: V * bytesPerRow, ...(block ? { block } : {}) });
    for (let row = 0; row < V; row += rowsPerPiece) {
      const to = Math.min(V, row + rowsPerPiece);
      const values = await tensors.readRows(stored(name), row, to);
      if (block) {
        const packed = quantize(values, to - row, D, bits!, block);
        scales.set(packed.scales, row * blocks);
        await writer.append(packed.values);
      } else await writer.append(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    if (block) await writer.add({ name: `${name}.scales`, dtype: 'float32', shape: [V * blocks] }, scales);
  });

  await chunk({ kind: 'core' }, async (writer) => {
    for (const name of ['per_layer_projection_norm.weight', 'norm.weight']) await vector(writer, name);
    for (let i = 0; i < config.altupNumInputs - 1; i++)
      for (const name of [`altup_projections.${i}.weight`, `altup_unembed_projections.${i}.weight`]) await whole(writer, name);
  });

  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    onProgress({ step: 'weights', done: layer, total: config.numHiddenLayers });
    const owner = kvSource(config, layer) === layer;
    const of = (name: string) => `layers.${layer}.${name}`;
    await chunk({ kind: 'layer', layer }, async (writer) => {
      for (const name of VECTORS) await vector(writer, of(name));
      if (owner) await vector(writer, of('self_attn.k_norm.weight'));
      for (const name of MATRICES) await whole(writer, of(name));
      if (owner) for (const name of ['self_attn.k_proj.weight', 'self_attn.v_proj.weight']) await whole(writer, of(name));
      const projection = await tensors.readRows(stored('per_layer_model_projection.weight'), layer * P, (layer + 1) * P);
      await matrix(writer, of('per_layer_model_projection.weight'), projection, P, D);
    });
    let from = 0;
    const down = await tensors.read(stored(of('mlp.down_proj.weight')));
    const F = config.intermediateSize[layer]!;
    for (const to of plan.bandEdges[layer]!) {
      const width = to - from;
      await chunk({ kind: 'band', layer, from, to }, async (writer) => {
        for (const name of ['mlp.gate_proj.weight', 'mlp.up_proj.weight'])
          await matrix(writer, bandName(of(name), from), await tensors.readRows(stored(of(name)), from, to), width, D);
        const columns = new Float32Array(D * width);
        for (let row = 0; row < D; row++) columns.set(down.subarray(row * F + from, row * F + to), row * width);
        await matrix(writer, bandName(of('mlp.down_proj.weight'), from), columns, D, width, true);
      });
      from = to;
    }
  }

  for (const layers of plan.planes) await writePlane(layers);

  for (const file of checkpoint.dir === undefined ? [] : TOKENIZER_FILES) {
    const bytes = await readFile(join(checkpoint.dir!, file)).catch(() => undefined);
    if (bytes && bytes.length > 0) await chunk({ kind: 'tokenizer', file }, (writer) => writer.append(bytes));
  }
  return chunks;

  async function writePlane(layers: readonly number[]): Promise<void> {
    const name = 'embed_tokens_per_layer.weight';
    const V = config.vocabSizePerLayerInput;
    const format: PleRowFormat = { layers: layers.length, width: P, bits: bits ?? 32, block: bits ? Math.min(requested, P) : P };
    const bytesPerRow = rowBytes(format);
    const rowsPerChunk = Math.max(1, Math.floor(PLANE_CHUNK_BYTES / bytesPerRow));
    const rowsPerPiece = Math.max(1, Math.floor(PIECE_BYTES / (config.numHiddenLayers * P * 4)));
    for (let fromRow = 0; fromRow < V; fromRow += rowsPerChunk) {
      const toRow = Math.min(V, fromRow + rowsPerChunk);
      await chunk({ kind: 'plane', layers: [...layers], fromRow, toRow }, async (writer) => {
        const shape = [toRow - fromRow, bits ? bytesPerRow : layers.length * P];
        await writer.begin({
          name,
          dtype: bits ? 'uint8' : 'float32',
          shape,
          bytes: (toRow - fromRow) * bytesPerRow,
          ...(bits ? { block: format.block } : {}),
        });
        for (let row = fromRow; row < toRow; row += rowsPerPiece) {
          signal?.throwIfAborted();
          onProgress({ step: 'embeddings', done: row, total: V });
          const to = Math.min(toRow, row + rowsPerPiece);
          const table = await tensors.readRows(stored(name), row, to);
          const out = new Uint8Array((to - row) * bytesPerRow);
          const line = new Float32Array(layers.length * P);
          for (let r = 0; r < to - row; r++) {
            layers.forEach((layer, i) =>
              line.set(table.subarray((r * config.numHiddenLayers + layer) * P, (r * config.numHiddenLayers + layer + 1) * P), i * P),
            );
            encodeRow(format, line, out, r * bytesPerRow);
          }
          await writer.append(out);
        }
      });
    }
  }
}

/** The name of a band of an FFN matrix inside a package. */
export const bandName = (name: string, from: number): string => `${name}@${from}`;

const VECTORS = [
  'input_layernorm.weight',
  'post_attention_layernorm.weight',
  'pre_feedforward_layernorm.weight',
  'post_feedforward_layernorm.weight',
  'post_per_layer_input_norm.weight',
  'self_attn.q_norm.weight',
  'laurel.post_laurel_norm.weight',
  'altup.correct_output_scale',
  'altup.correction_coefs.weight',
  'altup.prediction_coefs.weight',
  'altup.modality_router.weight',
  'altup.router_norm.weight',
];
const MATRICES = [
  'self_attn.q_proj.weight',
  'self_attn.o_proj.weight',
  'laurel.linear_left.weight',
  'laurel.linear_right.weight',
  'per_layer_input_gate.weight',
  'per_layer_projection.weight',
];
