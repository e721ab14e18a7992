import { z } from 'zod';

/** What one execution provider computed in a pass. */
export interface Placed {
  /** Runs of each operator. */
  readonly operators: Readonly<Record<string, number>>;
  /** Of the constants that these took: the weights that lie with this provider. */
  readonly constantBytes: number;
}

/** By provider, as ONNX Runtime names it without its ending: `CPU`, `WebGpu`, `CUDA`. */
export type Placement = Readonly<Record<string, Placed>>;

const Event = z.object({
  cat: z.string(),
  name: z.string().optional(),
  args: z.looseObject({ op_name: z.string().optional(), provider: z.string().optional(), parameter_size: z.string().optional() }).optional(),
});

/** Reads the profile that ONNX Runtime wrote of one pass. */
export function placementOf(profile: string): Placement {
  const placed = new Map<string, { operators: Record<string, number>; constantBytes: number }>();
  for (const { cat, name, args } of z.array(Event).parse(JSON.parse(profile))) {
    if (cat !== 'Node' || !name?.endsWith('_kernel_time') || !args?.provider || !args.op_name) continue;
    const provider = args.provider.replace(/ExecutionProvider$/, '');
    const entry = placed.get(provider) ?? { operators: {}, constantBytes: 0 };
    entry.operators[args.op_name] = (entry.operators[args.op_name] ?? 0) + 1;
    entry.constantBytes += Number(args.parameter_size ?? 0);
    placed.set(provider, entry);
  }
  return Object.fromEntries(placed);
}

/** Constants that lie with another provider than the CPU. */
export const acceleratorBytes = (placement: Placement): number =>
  Object.entries(placement).reduce((sum, [provider, { constantBytes }]) => sum + (provider === 'CPU' ? 0 : constantBytes), 0);
