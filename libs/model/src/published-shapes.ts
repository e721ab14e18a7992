import type { ModelConfig } from './model-config.js';

/** The published shapes of Gemma 3n's text decoder, from the checkpoints' config.json. */
export type PublishedShape = 'e2b' | 'e4b';

const shape = (layers: number, width: number, sharedLayers: number): ModelConfig => ({
  vocabSize: 262_400,
  vocabSizePerLayerInput: 262_144,
  hiddenSize: 2048,
  hiddenSizePerLayerInput: 256,
  intermediateSize: Array<number>(layers).fill(width),
  numHiddenLayers: layers,
  numAttentionHeads: 8,
  numKeyValueHeads: 2,
  headDim: 256,
  layerTypes: Array.from({ length: layers }, (_, i) => ((i + 1) % 5 === 0 ? 'full_attention' : 'sliding_attention')),
  slidingWindow: 512,
  numKvSharedLayers: sharedLayers,
  laurelRank: 64,
  altupNumInputs: 4,
  activationSparsityPattern: Array.from({ length: layers }, (_, i) => (i < 10 ? 0.95 : 0)),
  ropeThetaFull: 1_000_000,
  ropeThetaSliding: 10_000,
  rmsNormEps: 1e-6,
  finalLogitSoftcapping: 30,
  altupCoefClip: 120,
  maxPositionEmbeddings: 32_768,
  padTokenId: 0,
  bosTokenId: 2,
  eosTokenIds: [1, 106],
});

export const publishedShapes: Readonly<Record<PublishedShape, ModelConfig>> = { e2b: shape(30, 8192, 10), e4b: shape(35, 16_384, 15) };
