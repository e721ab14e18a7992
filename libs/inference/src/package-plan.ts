import { kvSource, type Manifest, type ModelConfig, type Part } from '@matfleet/model';
import { expectedTensors } from './checkpoint.js';
import { chunkBytes, type TensorHeader } from './chunk-writer.js';
import { rowBytes, type PleRowFormat } from './ple-rows.js';
import { blockFor, blocksIn, type Bits } from './quantize.js';

// What a package will hold, before a byte is read: which rows and columns of which published tensor go where, and in what form.

export interface Cut {
  readonly precision: Manifest['precision'];
  /** Per layer, the widths at which its FFN is cut. */
  readonly bandEdges: readonly (readonly number[])[];
  readonly planes: readonly (readonly number[])[];
}

/** Rows [fromRow, toRow) and columns [fromColumn, toColumn) of a published tensor. */
export interface TensorPlan {
  readonly source: string;
  readonly fromRow: number;
  readonly toRow: number;
  readonly fromColumn: number;
  readonly toColumn: number;
  /** Absent: the values stay float32. */
  readonly quantization?: { readonly bits: Bits; readonly block: number };
  /** As the chunk will list them: the values, then the scales of a quantised matrix. */
  readonly headers: readonly TensorHeader[];
}

export interface ChunkPlan {
  readonly part: Part;
  readonly tensors: readonly TensorPlan[];
}

/** One plane of the per-layer embeddings, in chunks of so many rows. */
export interface PlanePlan {
  readonly layers: readonly number[];
  readonly format: PleRowFormat;
  readonly rowsPerChunk: number;
}

export interface PackagePlan {
  readonly chunks: readonly ChunkPlan[];
  readonly planes: readonly PlanePlan[];
  /** Of all chunks but the tokenizer's. */
  readonly bytes: number;
}

export const PLE_TABLE = 'embed_tokens_per_layer.weight';
const PLANE_CHUNK_BYTES = 256 * 2 ** 20;

/** The name of a band of an FFN matrix inside a package. */
export const bandName = (name: string, from: number): string => `${name}@${from}`;

export function planPackage(config: ModelConfig, cut: Cut): PackagePlan {
  const bits = bitsOf(cut.precision);
  const requested = cut.precision.block ?? 0;
  const shapes = new Map(expectedTensors(config));
  const P = config.hiddenSizePerLayerInput;

  const tensor = (source: string, where: Where = {}): TensorPlan => {
    const shape = shapes.get(source)!;
    const { name = source, fromRow = 0, toRow = shape[0]!, fromColumn = 0, toColumn = shape[1] ?? 1, exact = false, small = false } = where;
    const [N, K] = [toRow - fromRow, toColumn - fromColumn];
    const block = small || !bits ? undefined : blockFor(requested, K, exact);
    const place = { source, fromRow, toRow, fromColumn, toColumn };
    if (!bits || !block) return { ...place, headers: [{ name, dtype: 'float32', shape: small ? shape : [N, K], bytes: N * K * 4 }] };
    const blocks = blocksIn(K, block);
    const bytesPerBlock = (block * bits) / 8;
    return {
      ...place,
      quantization: { bits, block },
      headers: [
        { name, dtype: 'uint8', shape: [N, blocks, bytesPerBlock], block, bytes: N * blocks * bytesPerBlock },
        { name: `${name}.scales`, dtype: 'float32', shape: [N * blocks], bytes: N * blocks * 4 },
      ],
    };
  };
  const small = (source: string): TensorPlan => tensor(source, { small: true });

  const chunks: ChunkPlan[] = [
    { part: { kind: 'core' }, tensors: [tensor('embed_tokens.weight')] },
    {
      part: { kind: 'core' },
      tensors: [
        ...['per_layer_projection_norm.weight', 'norm.weight'].map(small),
        ...range(config.altupNumInputs - 1).flatMap((i) =>
          [`altup_projections.${i}.weight`, `altup_unembed_projections.${i}.weight`].map((name) => tensor(name)),
        ),
      ],
    },
  ];
  for (const layer of range(config.numHiddenLayers)) {
    const of = (name: string): string => `layers.${layer}.${name}`;
    const owner = kvSource(config, layer) === layer;
    chunks.push({
      part: { kind: 'layer', layer },
      tensors: [
        ...[...SMALL, ...(owner ? ['self_attn.k_norm.weight'] : [])].map((name) => small(of(name))),
        ...[...MATRICES, ...(owner ? ['self_attn.k_proj.weight', 'self_attn.v_proj.weight'] : [])].map((name) => tensor(of(name))),
        tensor('per_layer_model_projection.weight', {
          name: of('per_layer_model_projection.weight'),
          fromRow: layer * P,
          toRow: (layer + 1) * P,
        }),
      ],
    });
    let from = 0;
    for (const to of cut.bandEdges[layer]!) {
      const band = (name: string, where: Where): TensorPlan => tensor(of(name), { ...where, name: bandName(of(name), from) });
      chunks.push({
        part: { kind: 'band', layer, from, to },
        tensors: [
          band('mlp.gate_proj.weight', { fromRow: from, toRow: to }),
          band('mlp.up_proj.weight', { fromRow: from, toRow: to }),
          band('mlp.down_proj.weight', { fromColumn: from, toColumn: to, exact: true }),
        ],
      });
      from = to;
    }
  }
  const planes = cut.planes.map((layers): PlanePlan => {
    const format: PleRowFormat = { layers: layers.length, width: P, bits: bits ?? 32, block: bits ? Math.min(requested, P) : P };
    return { layers, format, rowsPerChunk: Math.max(1, Math.floor(PLANE_CHUNK_BYTES / rowBytes(format))) };
  });
  const bytes =
    chunks.reduce((sum, { tensors }) => sum + chunkBytes(tensors.flatMap(({ headers }) => headers)), 0) +
    planes.reduce((sum, { format }) => sum + config.vocabSizePerLayerInput * rowBytes(format), 0);
  return { chunks, planes, bytes };
}

/** The chunk of a plane that holds these rows. */
export function planeHeader({ format, layers }: PlanePlan, rows: number): TensorHeader {
  const quantized = format.bits !== 32;
  const bytes = rows * rowBytes(format);
  const width = quantized ? rowBytes(format) : layers.length * format.width;
  return { name: PLE_TABLE, dtype: quantized ? 'uint8' : 'float32', shape: [rows, width], bytes, ...(quantized && { block: format.block }) };
}

interface Where {
  readonly name?: string;
  readonly fromRow?: number;
  readonly toRow?: number;
  readonly fromColumn?: number;
  readonly toColumn?: number;
  /** Blocks must fill the columns evenly. */
  readonly exact?: boolean;
  /** Norms and AltUp's own coefficients: float32 in their own shape. */
  readonly small?: boolean;
}

const bitsOf = ({ kind }: Manifest['precision']): Bits | undefined => (kind === 'fp32' ? undefined : kind === 'int8' ? 8 : 4);
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

const SMALL = [
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
