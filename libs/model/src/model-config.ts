import { z } from 'zod';

/** The text decoder's hyper-parameters, under the names of the published `config.json` in camel case. */
export const ModelConfig = z.object({
  vocabSize: z.number().int().positive(),
  vocabSizePerLayerInput: z.number().int().positive(),
  hiddenSize: z.number().int().positive(),
  hiddenSizePerLayerInput: z.number().int().positive(),
  /** FFN width of each layer of the largest slice, in original numbering. */
  intermediateSize: z.array(z.number().int().positive()),
  numHiddenLayers: z.number().int().positive(),
  numAttentionHeads: z.number().int().positive(),
  numKeyValueHeads: z.number().int().positive(),
  headDim: z.number().int().positive(),
  layerTypes: z.array(z.enum(['sliding_attention', 'full_attention'])),
  slidingWindow: z.number().int().positive(),
  numKvSharedLayers: z.number().int().nonnegative(),
  laurelRank: z.number().int().positive(),
  altupNumInputs: z.number().int().positive(),
  activationSparsityPattern: z.array(z.number().min(0).max(1)),
  ropeThetaFull: z.number().positive(),
  ropeThetaSliding: z.number().positive(),
  rmsNormEps: z.number().positive(),
  finalLogitSoftcapping: z.number().positive(),
  altupCoefClip: z.number().positive(),
  maxPositionEmbeddings: z.number().int().positive(),
  padTokenId: z.number().int().nonnegative(),
  bosTokenId: z.number().int().nonnegative(),
  /** Ids that end an answer, from generation_config.json. */
  eosTokenIds: z.array(z.number().int().nonnegative()),
});
export type ModelConfig = z.infer<typeof ModelConfig>;

/** Layers from this one on reuse the K/V of a lower layer. */
export const firstSharedLayer = (config: ModelConfig): number => config.numHiddenLayers - config.numKvSharedLayers;

/** The layer whose K/V layer `layer` attends to: itself below the first shared layer, else the last one of its own attention type below it. */
export function kvSource(config: ModelConfig, layer: number): number {
  const first = firstSharedLayer(config);
  if (layer < first) return layer;
  const source = config.layerTypes.slice(0, first).lastIndexOf(config.layerTypes[layer]!);
  if (source < 0) throw new Error(`layer ${layer} shares K/V, but no ${config.layerTypes[layer]} layer lies below layer ${first}`);
  return source;
}
