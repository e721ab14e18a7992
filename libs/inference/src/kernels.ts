// What ONNX Runtime 1.30.0 computes the decoder with on each execution provider, and where the graph must say it in other operators because a
// provider lacks a kernel or has one that gives wrong numbers: docs/adr/0013.

/** An execution provider that a slice can run on; what it has no kernel for runs on the CPU. */
export const PROVIDERS = ['cpu', 'webgpu', 'cuda'] as const;
export type Provider = (typeof PROVIDERS)[number];

export interface Kernels {
  /** FusedMatMul: a product with a transposed matrix in one operator. */
  readonly transposedProducts: boolean;
  /** SimplifiedLayerNormalization takes weights that differ by head. */
  readonly normByHead: boolean;
  /** GroupQueryAttention without new keys keeps to its window. */
  readonly windowOfShared: boolean;
  /** GroupQueryAttention without new keys needs its `present` outputs. */
  readonly presentOfShared: boolean;
  /** A fast product of 8-bit weights with float32 activations. */
  readonly bytesTimesFloats: boolean;
  /** Wide models' activations are rounded to 8 bits in products. */
  readonly roundsActivations: boolean;
  /** Positions of one pass that every driver's attention gets right; more where a check on the device says so. */
  readonly mostPassTokens: number;
  /** Results of one Split. */
  readonly mostSplitOutputs: number;
  /** Keys and values stay with the accelerator from one pass to the next. */
  readonly keepsKeysAndValues: boolean;
  /** Packs matrices for the processor when it loads, so that packing them ahead pays. */
  readonly packs: boolean;
}

const cpu: Kernels = {
  transposedProducts: true,
  normByHead: true,
  windowOfShared: true,
  presentOfShared: true,
  bytesTimesFloats: false,
  roundsActivations: true,
  mostPassTokens: Infinity,
  mostSplitOutputs: Infinity,
  keepsKeysAndValues: false,
  packs: true,
};

export const KERNELS: Readonly<Record<Provider, Kernels>> = {
  cpu,
  webgpu: {
    transposedProducts: false,
    normByHead: false,
    windowOfShared: false,
    presentOfShared: false,
    bytesTimesFloats: true,
    roundsActivations: false,
    // On the software driver SwiftShader attention over 32 new positions or more gives wrong numbers, over 31 right ones.
    mostPassTokens: 16,
    // With its input these are the storage buffers that WebGPU promises a shader: 8. An H100 has 16.
    mostSplitOutputs: 7,
    keepsKeysAndValues: true,
    packs: false,
  },
  // It has no float32 attention: that stays with the CPU's kernel.
  cuda: { ...cpu, normByHead: false, bytesTimesFloats: true, roundsActivations: false, packs: false },
};
