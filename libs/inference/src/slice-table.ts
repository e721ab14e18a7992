import { readFile } from 'node:fs/promises';
import { Manifest, Quality, Sha256, Slice } from '@matfleet/model';
import { z } from 'zod';

/** A score as people write it: the standard error of a share of right answers follows from its sample size. */
const TableQuality = Quality.partial({ stderr: true }).transform(({ value, samples, stderr }): Quality => {
  return { value, samples, stderr: stderr ?? (samples > 0 ? Math.sqrt((value * (1 - value)) / samples) : 0) };
});
const SliceTable = z.object({
  slices: z.array(Slice.extend({ quality: TableQuality.optional(), tasks: z.record(z.string(), TableQuality).optional() })).min(1),
  evaluation: Manifest.shape.evaluation,
  // What the qualities were measured on, as tables have it that no evaluation has rewritten yet.
  metric: z.string().optional(),
  dataset: z.object({ name: z.string(), sha256: Sha256.optional() }).optional(),
});
export interface SliceTable {
  readonly slices: Slice[];
  readonly evaluation?: Manifest['evaluation'];
}

/**
 * Reads a slice table: `{ "slices": [{ id, name, ffn, skip, quality?: { value, samples, stderr? }, tasks?: { name: quality } }], "evaluation"?: … }`,
 * or the list of slices alone. Without an evaluation,
 * `metric` and `dataset: { name, sha256? }` stand for it. Other fields are left out: they describe how the table was made, not the model.
 */
export async function readSliceTable(path: string): Promise<SliceTable> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new Error(`slice table ${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  const parsed = SliceTable.safeParse(Array.isArray(json) ? { slices: json } : json);
  if (!parsed.success) throw new Error(`slice table ${path}: ${z.prettifyError(parsed.error)}`);
  const { slices, metric, dataset } = parsed.data;
  const { name, sha256 } = dataset ?? {};
  const evaluation = parsed.data.evaluation ?? (metric && name ? { metric, dataset: name, ...(sha256 && { sha256 }) } : undefined);
  return { slices, evaluation };
}
