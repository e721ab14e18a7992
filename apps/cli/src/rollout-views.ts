import { z } from 'zod';
import { table } from './output.js';

/** The parts of the API's answers about rollouts that are shown. */

const Counts = z.array(z.looseObject({ state: z.string(), devices: z.number() }));
const Gate = z.looseObject({ gate: z.string(), verdict: z.string(), reason: z.string() });

export const Rollout = z.looseObject({
  id: z.string(),
  name: z.string().nullable(),
  modelVersionId: z.string(),
  state: z.enum(['awaiting-approval', 'running', 'paused', 'rolling-back', 'succeeded', 'aborted', 'rolled-back']),
  reason: z.string().nullable(),
  devices: z.number(),
  counts: Counts,
  holds: z.array(z.looseObject({ why: z.string(), devices: z.number() })),
  waves: z.array(
    z.looseObject({
      wave: z.number(),
      name: z.string().nullable(),
      state: z.string(),
      reason: z.string().nullable(),
      devices: z.number(),
      counts: Counts,
      gates: z.array(Gate),
    }),
  ),
  createdAt: z.string(),
});
export type Rollout = z.infer<typeof Rollout>;
type Wave = Rollout['waves'][number];

export const RolloutEvent = z.looseObject({
  at: z.string(),
  wave: z.number().nullable(),
  state: z.string(),
  reason: z.string().nullable(),
  actor: z.string().nullable(),
});
export type RolloutEvent = z.infer<typeof RolloutEvent>;

export const RolloutTarget = z.looseObject({ deviceName: z.string(), wave: z.number(), state: z.string(), reason: z.string().nullable() });
export type RolloutTarget = z.infer<typeof RolloutTarget>;

export const NextStep = z.looseObject({
  holds: z.array(z.looseObject({ deviceId: z.string(), kind: z.string(), reason: z.string() })),
  state: z.looseObject({ to: z.string(), reason: z.string() }).nullable(),
});

export const nameOf = ({ id, name }: Pick<Rollout, 'id' | 'name'>): string => name ?? id;
export const isEnded = ({ state }: Rollout): boolean => state === 'succeeded' || state === 'aborted' || state === 'rolled-back';
/** Nothing happens before somebody says so. */
export const waitsForOperator = ({ state, waves }: Rollout): boolean =>
  state === 'paused' || state === 'awaiting-approval' || (state === 'running' && waves.some((wave) => wave.state === 'awaiting-approval'));

const HOLDS: Readonly<Record<string, string>> = {
  away: 'are not here',
  retry: 'wait for another try',
  window: 'wait for their maintenance window',
  spread: 'wait for another one of their site',
  rate: 'wait for their turn',
  'other-rollout': 'are with another rollout',
};

const countsText = (counts: Wave['counts']): string => counts.map(({ state, devices }) => `${devices} ${state}`).join(', ');
const waveName = ({ wave, name }: Wave): string => (name === null ? `${wave}` : `${wave} ${name}`);

export const renderRollout = (rollout: Rollout): string =>
  [
    `rollout ${nameOf(rollout)} to ${rollout.modelVersionId.slice(0, 12)}: ${rollout.state}${rollout.reason ? `, ${rollout.reason}` : ''}`,
    table(rollout.waves, [
      { title: 'wave', value: waveName },
      { title: 'state', value: ({ state }) => state },
      { title: 'devices', value: ({ devices }) => `${devices}`, align: 'right' },
      { title: '', value: ({ counts }) => countsText(counts) },
      { title: 'why', value: ({ reason }) => reason ?? '' },
    ]),
    ...rollout.waves.flatMap((wave) => wave.gates.map(({ gate, verdict, reason }) => `wave ${wave.wave}, gate ${gate} ${verdict}: ${reason}`)),
    ...rollout.holds.map(({ why, devices }) => `${devices} ${HOLDS[why] ?? why}`),
  ].join('\n');

export const renderRollouts = (rollouts: readonly Rollout[]): string =>
  rollouts.length === 0
    ? 'no rollouts yet'
    : table(rollouts, [
        { title: 'rollout', value: nameOf },
        { title: 'to', value: ({ modelVersionId }) => modelVersionId.slice(0, 12) },
        { title: 'state', value: ({ state }) => state },
        { title: 'devices', value: ({ devices }) => `${devices}`, align: 'right' },
        { title: '', value: ({ counts }) => countsText(counts) },
        { title: 'since', value: ({ createdAt }) => createdAt },
      ]);

/** One line about where it is. */
export function progressLine(rollout: Rollout): string {
  const wave = currentWave(rollout);
  const where = wave ? `wave ${waveName(wave)} of ${rollout.waves.length}, ${wave.state}: ${countsText(wave.counts) || 'no devices'}` : '';
  return [rollout.state, where, rollout.reason ?? ''].filter((part) => part !== '').join(' · ');
}

/** The first that is not through, else the last. */
export const currentWave = ({ waves }: Rollout): Wave | undefined => waves.find(({ state }) => state !== 'succeeded') ?? waves.at(-1);

export const renderExplanation = ({
  rollout,
  events,
  holds,
  failed,
}: {
  rollout: Rollout;
  events: readonly RolloutEvent[];
  holds: z.infer<typeof NextStep>['holds'];
  failed: readonly RolloutTarget[];
}): string =>
  [
    renderRollout(rollout),
    ...(failed.length > 0 ? ['', 'failed:', ...failed.map(({ deviceName, wave, reason }) => `  ${deviceName} (wave ${wave}): ${reason ?? ''}`)] : []),
    ...(holds.length > 0 ? ['', 'waiting:', ...holds.slice(0, 20).map(({ deviceId, reason }) => `  ${deviceId}: ${reason}`)] : []),
    ...(holds.length > 20 ? [`  and ${holds.length - 20} more`] : []),
    '',
    'what happened:',
    ...events.map(
      ({ at, wave, state, reason, actor }) =>
        `  ${at}  ${wave === null ? 'rollout' : `wave ${wave}`} ${state}${reason ? `: ${reason}` : ''}${actor ? ` (${actor})` : ''}`,
    ),
  ].join('\n');
