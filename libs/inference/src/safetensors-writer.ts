import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelConfig } from '@matfleet/model';
import { toBfloat16 } from './bfloat16.js';
import { assertRoom } from './disk-space.js';
import type { ImportProgress } from './engine-api.js';
import { makeDir } from './partial-dir.js';
import type { RandomTensors } from './random-tensors.js';

const PREFIX = 'model.language_model.';
const SHARD_BYTES = 4e9;
const PIECE_VALUES = 4 * 2 ** 20;

interface Shard {
  readonly file: string;
  readonly names: string[];
  bytes: number;
}

export interface WriteOptions {
  readonly out: string;
  readonly onProgress?: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
}

/** Writes a checkpoint directory in the published layout, bfloat16, in shards with an index. `out` appears complete or not at all. */
export async function writeSafeTensors(config: ModelConfig, tensors: RandomTensors, options: WriteOptions): Promise<void> {
  const bytesOf = (name: string): number => tensors.bytes(name);
  const shards = shardsOf(tensors.names, bytesOf);
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0);
  await makeDir(options.out, async (partial) => {
    await assertRoom(partial, total, 'the checkpoint');
    let done = 0;
    for (const shard of shards) {
      const handle = await open(join(partial, shard.file), 'wx');
      try {
        await handle.writeFile(header(shard, tensors, bytesOf));
        for (const name of shard.names) {
          const [rows, ...rest] = tensors.shape(name) as [number, ...number[]];
          const rowsPerPiece = Math.max(1, Math.floor(PIECE_VALUES / rest.reduce((a, b) => a * b, 1)));
          for (let row = 0; row < rows; row += rowsPerPiece) {
            options.onProgress?.({ step: 'weights', done, total });
            options.signal?.throwIfAborted();
            const bytes = toBfloat16(await tensors.readRows(name, row, Math.min(rows, row + rowsPerPiece)));
            await handle.writeFile(bytes);
            done += bytes.length;
          }
        }
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    const json = (file: string, value: unknown): Promise<void> => writeFile(join(partial, file), `${JSON.stringify(value, null, 2)}\n`);
    await json('model.safetensors.index.json', {
      metadata: { total_size: total },
      weight_map: Object.fromEntries(shards.flatMap(({ file, names }) => names.map((name) => [PREFIX + name, file]))),
    });
    await json('config.json', publishedConfig(config));
    await json('generation_config.json', { eos_token_id: config.eosTokenIds });
  });
}

function shardsOf(names: readonly string[], bytesOf: (name: string) => number): Shard[] {
  const groups: { names: string[]; bytes: number }[] = [];
  for (const name of names) {
    const bytes = bytesOf(name);
    const last = groups.at(-1);
    if (last && last.bytes + bytes <= SHARD_BYTES) {
      last.names.push(name);
      last.bytes += bytes;
    } else groups.push({ names: [name], bytes });
  }
  const five = (n: number): string => String(n).padStart(5, '0');
  return groups.map((group, i) => ({ ...group, file: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors` }));
}

/** 8 bytes of length, then JSON padded with blanks to a multiple of 8. */
function header(shard: Shard, tensors: RandomTensors, bytesOf: (name: string) => number): Uint8Array {
  let at = 0;
  const entries = shard.names.map((name) => {
    const begin = at;
    at += bytesOf(name);
    return [PREFIX + name, { dtype: 'BF16', shape: tensors.shape(name), data_offsets: [begin, at] }];
  });
  const json = JSON.stringify({ __metadata__: { format: 'pt' }, ...Object.fromEntries(entries) });
  const text = Buffer.from(json.padEnd(Math.ceil(Buffer.byteLength(json) / 8) * 8));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([prefix, text]);
}

function publishedConfig(config: ModelConfig): unknown {
  return {
    architectures: ['Gemma3nForConditionalGeneration'],
    model_type: 'gemma3n',
    tie_word_embeddings: true,
    text_config: {
      model_type: 'gemma3n_text',
      vocab_size: config.vocabSize,
      vocab_size_per_layer_input: config.vocabSizePerLayerInput,
      hidden_size: config.hiddenSize,
      hidden_size_per_layer_input: config.hiddenSizePerLayerInput,
      intermediate_size: config.intermediateSize,
      num_hidden_layers: config.numHiddenLayers,
      num_attention_heads: config.numAttentionHeads,
      num_key_value_heads: config.numKeyValueHeads,
      head_dim: config.headDim,
      layer_types: config.layerTypes,
      sliding_window: config.slidingWindow,
      num_kv_shared_layers: config.numKvSharedLayers,
      laurel_rank: config.laurelRank,
      altup_num_inputs: config.altupNumInputs,
      altup_coef_clip: config.altupCoefClip,
      activation_sparsity_pattern: config.activationSparsityPattern,
      rope_theta: config.ropeThetaFull,
      rope_local_base_freq: config.ropeThetaSliding,
      rms_norm_eps: config.rmsNormEps,
      final_logit_softcapping: config.finalLogitSoftcapping,
      max_position_embeddings: config.maxPositionEmbeddings,
      pad_token_id: config.padTokenId,
      bos_token_id: config.bosTokenId,
    },
  };
}
