import { z } from 'zod';

/** A measured score on one dataset, 0..1. */
export const Quality = z.object({
  value: z.number().min(0).max(1),
  /** Number of examples behind it; 0 when unknown (published figures). */
  samples: z.number().int().nonnegative(),
  /** Standard error of `value`. */
  stderr: z.number().nonnegative(),
});
export type Quality = z.infer<typeof Quality>;

/** A MatFormer slice: which layers are kept and how wide each one's FFN is. Its identity is the pair (ffn, skip), never its name. */
export const Slice = z.object({
  id: z.string().min(1),
  name: z.string().min(1),
  /** FFN width per *kept* layer, in order. */
  ffn: z.array(z.number().int().positive()).min(1),
  /** Skipped layers in original numbering, ascending. */
  skip: z.array(z.number().int().nonnegative()),
  quality: Quality.optional(),
  /** Quality per named task. */
  tasks: z.record(z.string(), Quality).optional(),
});
export type Slice = z.infer<typeof Slice>;
