import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';

const seconds = z
  .number()
  .nonnegative()
  .max(7 * 86_400);
const chance = z.number().gt(0).max(1);
const timed = { at: seconds, for: seconds.default(0), group: z.string().optional() };

/** One fault of a script: `at` seconds after the last device was started, lasting `for` seconds. Without a group it is everybody's. */
export const Fault = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('drop'), ...timed }).strict(),
  z.object({ kind: z.literal('freeze'), ...timed }).strict(),
  z.object({ kind: z.literal('half-open'), ...timed }).strict(),
  z
    .object({ kind: z.literal('delay'), ...timed, ms: z.number().positive().max(60_000), jitterMs: z.number().nonnegative().max(60_000).default(0) })
    .strict(),
  z.object({ kind: z.literal('duplicate'), ...timed, chance: chance.default(0.1) }).strict(),
  z.object({ kind: z.literal('reorder'), ...timed, chance: chance.default(0.1) }).strict(),
  /** The devices' wall clocks jump by so many milliseconds, back or forth, and come right again. */
  z.object({ kind: z.literal('skew'), ...timed, ms: z.number().int() }).strict(),
  /** The devices' agents are killed and started again. */
  z.object({ kind: z.literal('restart'), ...timed }).strict(),
]);
export type Fault = z.infer<typeof Fault>;

const Script = z
  .object({
    /** Name → share of the devices, drawn by the seed; a device is in one group at most. */
    groups: z.record(z.string().regex(/^[a-z][a-z0-9-]{0,30}$/), z.number().gt(0).max(1)).default({}),
    faults: z.array(Fault).max(10_000),
  })
  .strict()
  .superRefine(({ groups, faults }, { addIssue }) => {
    const shares = Object.values(groups).reduce((sum, share) => sum + share, 0);
    if (shares > 1 + 1e-9) addIssue({ code: 'custom', path: ['groups'], message: `the shares add up to ${shares}, more than 1` });
    for (const [index, { group }] of faults.entries())
      if (group !== undefined && !(group in groups))
        addIssue({
          code: 'custom',
          path: ['faults', index, 'group'],
          message: `there is no group ${group}; there is: ${Object.keys(groups).join(', ') || 'none'}`,
        });
  });
export type FaultScript = z.infer<typeof Script>;

/** The devices that are in no group of the script. */
export const REST = 'rest';
export const NO_FAULTS: FaultScript = { groups: {}, faults: [] };

/** YAML or JSON. One error lists every problem with its place. */
export function parseScript(text: string, name: string): FaultScript {
  const result = Script.safeParse(parse(text));
  if (result.success) return result.data;
  throw new Error(`${name} is no fault script:\n${result.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`).join('\n')}`);
}

export const readScript = (path: string): FaultScript => parseScript(readFileSync(path, 'utf8'), path);

/** `chance` in [0, 1) → the group it falls into. */
export function drawGroup({ groups }: FaultScript, chance: number): string {
  let rest = chance;
  for (const [name, share] of Object.entries(groups)) if ((rest -= share) < 0) return name;
  return REST;
}

const SOCKET_FAULTS: ReadonlySet<Fault['kind']> = new Set(['drop', 'freeze', 'half-open', 'delay']);

/** Groups whose devices dial through a proxy: those with a fault that happens to sockets. */
export function proxiedGroups({ groups, faults }: FaultScript): string[] {
  const socketFaults = faults.filter(({ kind }) => SOCKET_FAULTS.has(kind));
  return [...Object.keys(groups), REST].filter((name) => socketFaults.some(({ group }) => group === undefined || group === name));
}
