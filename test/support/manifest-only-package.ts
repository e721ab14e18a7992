import { createHash } from 'node:crypto';
import type { Manifest } from '@matfleet/model';

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** A package of one tiny layer. What the tensors hold does not matter to the control plane, what they weigh does. */
export function manifestOnlyPackage(name: string, seed: number): { manifest: Buffer; id: string; chunks: Map<string, Buffer> } {
  const parts = [{ kind: 'core' as const }, { kind: 'layer' as const, layer: 0 }, { kind: 'band' as const, layer: 0, from: 0, to: 64 }];
  const chunks = new Map<string, Buffer>();
  const described = parts.map((part, index) => {
    const bytes = Buffer.alloc(5_000 + index, `${name} ${seed} ${index} `);
    chunks.set(sha256(bytes), bytes);
    return { id: sha256(bytes), bytes: bytes.length, part, tensors: [] };
  });
  const manifest: Manifest = {
    format: 'matfleet-package-1',
    name,
    config: {
      vocabSize: 64,
      vocabSizePerLayerInput: 64,
      hiddenSize: 32,
      hiddenSizePerLayerInput: 8,
      intermediateSize: [64],
      numHiddenLayers: 1,
      numAttentionHeads: 1,
      numKeyValueHeads: 1,
      headDim: 32,
      layerTypes: ['full_attention'],
      slidingWindow: 16,
      numKvSharedLayers: 0,
      laurelRank: 4,
      altupNumInputs: 2,
      activationSparsityPattern: [0],
      ropeThetaFull: 1e6,
      ropeThetaSliding: 1e4,
      rmsNormEps: 1e-6,
      finalLogitSoftcapping: 30,
      altupCoefClip: 120,
      maxPositionEmbeddings: 128,
      padTokenId: 0,
      bosTokenId: 2,
      eosTokenIds: [1],
    },
    precision: { kind: 'int8', block: 32 },
    chunks: described,
    slices: [{ id: 'full', name: 'full', ffn: [64], skip: [], quality: { value: 0.9, samples: 100, stderr: 0.03 } }],
    golden: [],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return { manifest: bytes, id: sha256(bytes), chunks };
}
