import type { Chunk, Manifest, Quality, Slice } from '@matfleet/model';

/** A small manifest for specs: 6 layers, two bands of 64 channels each; `bandBytes` scales everything that a slice can do without. */
export function manifestOf(slices: readonly Slice[], bandBytes = 100_000): Manifest {
  const layers = 6;
  const chunk = (index: number, bytes: number, part: Chunk['part'], tensors: Chunk['tensors'] = []): Chunk => ({
    id: index.toString(16).padStart(64, '0'),
    bytes,
    part,
    tensors,
  });
  const chunks: Chunk[] = [
    chunk(1, 400_000, { kind: 'core' }, [{ name: 'embed_tokens.weight', dtype: 'int8', shape: [512, 64], offset: 0, bytes: 32_768 }]),
  ];
  for (let layer = 0; layer < layers; layer++) {
    chunks.push(chunk(10 + layer, bandBytes / 2, { kind: 'layer', layer }));
    chunks.push(
      chunk(100 + layer, bandBytes, { kind: 'band', layer, from: 0, to: 64 }),
      chunk(200 + layer, bandBytes, { kind: 'band', layer, from: 64, to: 128 }),
    );
  }
  return {
    format: 'matfleet-package-1',
    name: 'small',
    config: {
      vocabSize: 512,
      vocabSizePerLayerInput: 512,
      hiddenSize: 64,
      hiddenSizePerLayerInput: 8,
      intermediateSize: Array.from({ length: layers }, () => 128),
      numHiddenLayers: layers,
      numAttentionHeads: 4,
      numKeyValueHeads: 2,
      headDim: 16,
      layerTypes: Array.from({ length: layers }, (_, i) => (i % 3 === 2 ? 'full_attention' : 'sliding_attention')),
      slidingWindow: 32,
      numKvSharedLayers: 3,
      laurelRank: 4,
      altupNumInputs: 4,
      activationSparsityPattern: Array.from({ length: layers }, () => 0),
      ropeThetaFull: 1e6,
      ropeThetaSliding: 1e4,
      rmsNormEps: 1e-6,
      finalLogitSoftcapping: 30,
      altupCoefClip: 120,
      maxPositionEmbeddings: 512,
      padTokenId: 0,
      bosTokenId: 2,
      eosTokenIds: [1],
    },
    precision: { kind: 'int8', block: 64 },
    chunks,
    slices: [...slices],
    golden: [],
  };
}

export const quality = (value: number, samples = 2_000): Quality => ({ value, samples, stderr: Math.sqrt((value * (1 - value)) / samples) });

/** A slice by the number of its wide layers and whether layer 4 is skipped. */
export function sliceOf(id: string, wide: number, value: number | null, options: { skip?: boolean; samples?: number } = {}): Slice {
  const kept = options.skip ? 5 : 6;
  return {
    id,
    name: id,
    ffn: Array.from({ length: kept }, (_, i) => (i < wide ? 128 : 64)),
    skip: options.skip ? [4] : [],
    ...(value === null ? {} : { quality: quality(value, options.samples) }),
  };
}

/** A frontier of four clearly different slices. */
export const fourSlices: readonly Slice[] = [
  sliceOf('s1', 0, 0.62, { skip: true }),
  sliceOf('s2', 0, 0.74),
  sliceOf('s3', 3, 0.86),
  sliceOf('s4', 6, 0.96),
];
