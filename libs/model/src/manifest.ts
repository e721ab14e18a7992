import { z } from 'zod';
import { ModelConfig } from './model-config.js';
import { Slice } from './slice.js';

export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'a lower-case hex SHA-256');

export const Precision = z.object({
  kind: z.enum(['fp32', 'int8', 'int4']),
  /** Requested block along a matrix's input axis; null for fp32. Per tensor the block is min(N, band, K). */
  block: z.number().int().positive().nullable(),
});
export type Precision = z.infer<typeof Precision>;

/** What part of the model a chunk holds; decides which slices need it. Layers are in original numbering. */
export const Part = z.discriminatedUnion('kind', [
  /** Everything that every slice needs: global matrices, norms, token embedding and tied head. */
  z.object({ kind: z.literal('core') }),
  /** A layer without its FFN. */
  z.object({ kind: z.literal('layer'), layer: z.number().int().nonnegative() }),
  /** FFN channels [from, to) of a layer: gate, up and down. */
  z.object({ kind: z.literal('band'), layer: z.number().int().nonnegative(), from: z.number().int().nonnegative(), to: z.number().int().positive() }),
  /** Per-layer embedding columns of these layers, rows [fromRow, toRow). */
  z.object({
    kind: z.literal('plane'),
    layers: z.array(z.number().int().nonnegative()).min(1),
    fromRow: z.number().int().nonnegative(),
    toRow: z.number().int().positive(),
  }),
  z.object({ kind: z.literal('tokenizer'), file: z.string().regex(/^[a-z0-9_.-]+$/) }),
]);
export type Part = z.infer<typeof Part>;

/** One file of a package, named by the SHA-256 of its bytes. */
export const Chunk = z.object({
  id: Sha256,
  bytes: z.number().int().positive(),
  part: Part,
  /** Tensors inside, by published name (without prefix); `offset` is from the chunk's start. */
  tensors: z.array(
    z.object({
      name: z.string(),
      dtype: z.enum(['float32', 'uint8', 'int8', 'bfloat16']),
      shape: z.array(z.number().int().nonnegative()),
      offset: z.number().int().nonnegative(),
      bytes: z.number().int().nonnegative(),
      /** Quantisation block actually used; absent for unquantised tensors. */
      block: z.number().int().positive().optional(),
    }),
  ),
});
export type Chunk = z.infer<typeof Chunk>;

/** Greedy continuation that a healthy device must reproduce before a slice becomes active. */
export const GoldenPrompt = z.object({ sliceId: z.string(), promptIds: z.array(z.number().int()), tokenIds: z.array(z.number().int()) });
export type GoldenPrompt = z.infer<typeof GoldenPrompt>;

/** A model version. Its id is the SHA-256 of the manifest's bytes. */
export const Manifest = z.object({
  format: z.literal('matfleet-package-1'),
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/),
  config: ModelConfig,
  precision: Precision,
  chunks: z.array(Chunk),
  slices: z.array(Slice).min(1),
  golden: z.array(GoldenPrompt),
  /** Reserved: small differences on top of these weights, each with its own chunks. None can be packaged yet. */
  adapters: z.array(z.never()).max(0, 'adapters are reserved for a later format').optional(),
  /** What the qualities were measured on. */
  evaluation: z
    .object({ metric: z.string(), dataset: z.string(), sha256: Sha256.optional(), date: z.string().optional(), command: z.string().optional() })
    .optional(),
});
export type Manifest = z.infer<typeof Manifest>;

/** The chunk with the model's vocabulary; undefined for a model that takes token ids alone. */
export const tokenizerOf = ({ chunks }: Pick<Manifest, 'chunks'>): Chunk | undefined =>
  chunks.find(({ part }) => part.kind === 'tokenizer' && part.file === 'tokenizer.json');
