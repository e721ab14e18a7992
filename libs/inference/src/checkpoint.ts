import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kvSource, ModelConfig } from '@matfleet/model';
import { z } from 'zod';
import type { RawRows } from './raw-rows.js';
import { SafeTensors } from './safetensors.js';

const int = z.number().int();
const Rope = z.object({ rope_theta: z.number().positive(), rope_type: z.literal('default').optional() });

/** The fields of a text `config.json` that the forward pass depends on; defaults are the reference's own. */
const TextConfig = z.object({
  vocab_size: int.positive(),
  vocab_size_per_layer_input: int.positive(),
  hidden_size: int.positive(),
  hidden_size_per_layer_input: int.positive(),
  intermediate_size: z.union([int.positive(), z.array(int.positive())]),
  num_hidden_layers: int.positive(),
  num_attention_heads: int.positive(),
  num_key_value_heads: int.positive(),
  head_dim: int.positive(),
  layer_types: z.array(z.enum(['sliding_attention', 'full_attention'])).nullish(),
  sliding_window: int.positive(),
  num_kv_shared_layers: int.nonnegative(),
  laurel_rank: int.positive(),
  altup_num_inputs: int.min(2),
  altup_active_idx: z.literal(0).default(0),
  altup_correct_scale: z.literal(true).default(true),
  altup_coef_clip: z.number().positive().nullish(),
  activation_sparsity_pattern: z.union([z.array(z.number()), z.number()]).nullish(),
  hidden_activation: z.literal('gelu_pytorch_tanh').default('gelu_pytorch_tanh'),
  rope_parameters: z.object({ full_attention: Rope, sliding_attention: Rope }).nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_local_base_freq: z.number().positive().nullish(),
  rope_scaling: z.null().optional(),
  rms_norm_eps: z.number().positive(),
  final_logit_softcapping: z.number().positive(),
  max_position_embeddings: int.positive(),
  attention_bias: z.literal(false).default(false),
  pad_token_id: int.nullish(),
  bos_token_id: int.nullish(),
  eos_token_id: z.union([int, z.array(int)]).nullish(),
});
type TextConfig = z.infer<typeof TextConfig>;

const MODEL_TYPES = ['gemma3n', 'gemma3n_text'];
const PREFIXES = ['model.language_model.', 'language_model.model.', 'model.'];

/** Where a model's values come from. They are read on demand. */
export interface TensorSource {
  shape(name: string): readonly number[];
  /** Bytes of one value, and of the whole tensor, as published. */
  valueBytes(name: string): number;
  bytes(name: string): number;
  /** Rows [from, to) of a matrix, elements of a vector. */
  readRaw(name: string, from: number, to: number): Promise<RawRows>;
  close(): Promise<void>;
}

/** A model as it was published, opened for reading. Close its tensors. */
export interface Checkpoint {
  /** The folder that tokenizer files may lie in; absent for a model made of random values. */
  readonly dir?: string;
  readonly config: ModelConfig;
  readonly tensors: TensorSource;
  /** Maps a published tensor name without its prefix to the name in the files. */
  stored(name: string): string;
}

/** Opens a checkpoint and checks every tensor that the text model needs: architecture, names, shapes, types. */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  const config = await readModelConfig(dir);
  const tensors = await SafeTensors.open(dir);
  try {
    const prefix = PREFIXES.find((p) => tensors.has(`${p}embed_tokens.weight`)) ?? PREFIXES[0]!;
    const stored = (name: string) => prefix + name;
    for (const [name, shape] of expectedTensors(config)) tensors.expect(stored(name), shape);
    return { dir, config, tensors, stored };
  } catch (error) {
    await tensors.close();
    throw error;
  }
}

/** Parses `config.json` (nested `text_config` or flat) and `generation_config.json`. Throws on another architecture, naming it. */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  const path = join(dir, 'config.json');
  const file = (await readJson(path)) as Record<string, unknown> | undefined;
  if (!file) throw new Error(`${dir} is no checkpoint directory: it has no config.json`);
  const raw = (file['text_config'] ?? file) as Record<string, unknown>;
  const type = raw['model_type'] ?? file['model_type'];
  if (!MODEL_TYPES.includes(String(type)) || !MODEL_TYPES.includes(String(file['model_type'])))
    throw new Error(
      `${path}: model_type ${JSON.stringify(file['model_type'])}${raw === file ? '' : ` with text ${JSON.stringify(type)}`} is not supported; ${MODEL_TYPES.join(' and ')} are`,
    );
  if ((file['tie_word_embeddings'] ?? raw['tie_word_embeddings'] ?? true) !== true)
    throw new Error(`${path}: untied word embeddings are not supported`);
  const parsed = TextConfig.safeParse(raw);
  if (!parsed.success) throw new Error(`${path}: ${z.prettifyError(parsed.error)}`);
  const generation = ((await readJson(join(dir, 'generation_config.json'))) ?? {}) as { eos_token_id?: number | number[] };
  const config = toModelConfig(
    parsed.data,
    path,
    [generation.eos_token_id ?? [], parsed.data.eos_token_id ?? (file['eos_token_id'] as number | number[]) ?? [1]].flat(),
  );
  return ModelConfig.parse(config);
}

function toModelConfig(text: TextConfig, path: string, eosTokenIds: number[]): ModelConfig {
  const layers = text.num_hidden_layers;
  const perLayer = <T>(name: string, value: T | T[]): T[] => {
    const list = Array.isArray(value) ? value : Array<T>(layers).fill(value);
    if (list.length !== layers) throw new Error(`${path}: ${name} has ${list.length} entries for ${layers} layers`);
    return list;
  };
  const sparseByDefault = Array.from({ length: layers }, (_, i) => (i < 10 ? 0.95 : 0));
  const fullEveryFifth = Array.from({ length: layers }, (_, i) => ((i + 1) % 5 === 0 ? ('full_attention' as const) : ('sliding_attention' as const)));
  const config: ModelConfig = {
    vocabSize: text.vocab_size,
    vocabSizePerLayerInput: text.vocab_size_per_layer_input,
    hiddenSize: text.hidden_size,
    hiddenSizePerLayerInput: text.hidden_size_per_layer_input,
    intermediateSize: perLayer('intermediate_size', text.intermediate_size),
    numHiddenLayers: layers,
    numAttentionHeads: text.num_attention_heads,
    numKeyValueHeads: text.num_key_value_heads,
    headDim: text.head_dim,
    layerTypes: perLayer('layer_types', text.layer_types ?? fullEveryFifth),
    slidingWindow: text.sliding_window,
    numKvSharedLayers: text.num_kv_shared_layers,
    laurelRank: text.laurel_rank,
    altupNumInputs: text.altup_num_inputs,
    activationSparsityPattern: perLayer('activation_sparsity_pattern', text.activation_sparsity_pattern ?? sparseByDefault),
    ropeThetaFull: text.rope_parameters?.full_attention.rope_theta ?? text.rope_theta ?? 1_000_000,
    ropeThetaSliding: text.rope_parameters?.sliding_attention.rope_theta ?? text.rope_local_base_freq ?? 10_000,
    rmsNormEps: text.rms_norm_eps,
    finalLogitSoftcapping: text.final_logit_softcapping,
    altupCoefClip: text.altup_coef_clip ?? 120,
    maxPositionEmbeddings: text.max_position_embeddings,
    padTokenId: text.pad_token_id ?? 0,
    bosTokenId: text.bos_token_id ?? 2,
    eosTokenIds: [...new Set(eosTokenIds)],
  };
  if (config.numKvSharedLayers >= layers)
    throw new Error(`${path}: num_kv_shared_layers ${config.numKvSharedLayers} leaves none of ${layers} layers with K/V`);
  if (config.headDim % 2 !== 0) throw new Error(`${path}: head_dim ${config.headDim} is odd; rotary positions need pairs`);
  if (config.numAttentionHeads % config.numKeyValueHeads !== 0)
    throw new Error(`${path}: ${config.numAttentionHeads} heads do not share ${config.numKeyValueHeads} K/V heads evenly`);
  for (let layer = 0; layer < layers; layer++) kvSource(config, layer);
  return config;
}

/** Every tensor of the text model with its shape, by published name. K/V of sharing layers is stored by some converters and never used. */
export function expectedTensors(config: ModelConfig): [name: string, shape: number[]][] {
  const { hiddenSize: D, hiddenSizePerLayerInput: P, numHiddenLayers: L, headDim: d, laurelRank: R, altupNumInputs: A } = config;
  const q = config.numAttentionHeads * d;
  const kv = config.numKeyValueHeads * d;
  const list: [string, number[]][] = [
    ['embed_tokens.weight', [config.vocabSize, D]],
    ['embed_tokens_per_layer.weight', [config.vocabSizePerLayerInput, L * P]],
    ['per_layer_model_projection.weight', [L * P, D]],
    ['per_layer_projection_norm.weight', [P]],
    ['norm.weight', [D]],
  ];
  for (let i = 0; i < A - 1; i++) list.push([`altup_projections.${i}.weight`, [D, D]], [`altup_unembed_projections.${i}.weight`, [D, D]]);
  for (let l = 0; l < L; l++) {
    const F = config.intermediateSize[l]!;
    const layer: [string, number[]][] = [
      ['input_layernorm.weight', [D]],
      ['post_attention_layernorm.weight', [D]],
      ['pre_feedforward_layernorm.weight', [D]],
      ['post_feedforward_layernorm.weight', [D]],
      ['post_per_layer_input_norm.weight', [D]],
      ['self_attn.q_proj.weight', [q, D]],
      ['self_attn.o_proj.weight', [D, q]],
      ['self_attn.q_norm.weight', [d]],
      ['mlp.gate_proj.weight', [F, D]],
      ['mlp.up_proj.weight', [F, D]],
      ['mlp.down_proj.weight', [D, F]],
      ['laurel.linear_left.weight', [R, D]],
      ['laurel.linear_right.weight', [D, R]],
      ['laurel.post_laurel_norm.weight', [D]],
      ['altup.correct_output_scale', [D]],
      ['altup.correction_coefs.weight', [A, A]],
      ['altup.prediction_coefs.weight', [A * A, A]],
      ['altup.modality_router.weight', [A, D]],
      ['altup.router_norm.weight', [D]],
      ['per_layer_input_gate.weight', [P, D]],
      ['per_layer_projection.weight', [D, P]],
    ];
    if (kvSource(config, l) === l)
      layer.push(['self_attn.k_proj.weight', [kv, D]], ['self_attn.v_proj.weight', [kv, D]], ['self_attn.k_norm.weight', [d]]);
    list.push(...layer.map(([name, shape]): [string, number[]] => [`layers.${l}.${name}`, shape]));
  }
  return list;
}

async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Error(`${path} is not valid JSON`, { cause });
  }
}
