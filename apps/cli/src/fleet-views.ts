import { z } from 'zod';
import { table } from './output.js';

/** The parts of the API's answers that are shown. Loose objects: with --json everything the API said is passed on. */

export const Device = z.looseObject({
  id: z.string(),
  name: z.string(),
  labels: z.record(z.string(), z.string()),
  presence: z.string(),
  standing: z.string().optional(),
  desired: z.looseObject({ generation: z.number(), modelName: z.string(), sliceId: z.string(), reason: z.string() }).nullable(),
  observed: z.looseObject({ generation: z.number(), sliceId: z.string() }).nullable(),
  phase: z.string().nullish(),
  latency: z.looseObject({ ttftMs: z.looseObject({ p50: z.number() }), tokensPerSecond: z.number() }).nullable(),
});
export type Device = z.infer<typeof Device>;

export const Assignment = z.looseObject({
  generation: z.number(),
  modelVersionId: z.string(),
  sliceId: z.string(),
  reason: z.string(),
  createdAt: z.string(),
  explanation: z.looseObject({
    candidates: z.array(
      z.looseObject({
        sliceId: z.string(),
        quality: z.number().nullish(),
        totalBytes: z.number(),
        predictedInterTokenMs: z.number().nullish(),
        fits: z.boolean(),
        chosen: z.boolean(),
        why: z.string(),
      }),
    ),
  }),
});
export type Assignment = z.infer<typeof Assignment>;

export const Inference = z.looseObject({
  id: z.string(),
  state: z.enum(['queued', 'running', 'succeeded', 'failed']),
  answer: z.string().nullable(),
  error: z.string().nullish(),
  attempts: z.array(
    z.looseObject({
      ordinal: z.number(),
      deviceName: z.string().nullish(),
      sliceId: z.string(),
      state: z.string(),
      reason: z.string().nullish(),
      error: z.string().nullish(),
      ttftMs: z.number().nullish(),
    }),
  ),
});
export type Inference = z.infer<typeof Inference>;

export const JoinToken = z.looseObject({ token: z.string(), expiresAt: z.string(), usesLeft: z.number() });

export const isFinal = ({ state }: Inference): boolean => state === 'succeeded' || state === 'failed';

export const renderDevices = (devices: readonly Device[]): string =>
  devices.length === 0
    ? 'no devices yet; `matfleet join-token` makes a token for the first'
    : table(devices, [
        { title: 'name', value: (device) => device.name },
        { title: 'id', value: (device) => device.id },
        { title: 'presence', value: (device) => refusedAs(device) ?? device.presence },
        { title: 'model', value: (device) => device.desired?.modelName ?? '-' },
        { title: 'slice', value: (device) => sliceOf(device) },
        { title: 'phase', value: (device) => device.phase ?? '-' },
        { title: 'ttft p50', value: (device) => (device.latency ? `${device.latency.ttftMs.p50.toFixed(0)} ms` : '-'), align: 'right' },
        { title: 'tokens/s', value: (device) => device.latency?.tokensPerSecond.toFixed(1) ?? '-', align: 'right' },
        { title: 'labels', value: (device) => labelsOf(device) || '-' },
      ]);

export const renderLabels = (device: Device): string => `${device.name}: ${labelsOf(device) || 'no labels'}`;

const labelsOf = ({ labels }: Device): string =>
  Object.entries(labels)
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');

/** A refused device is not online, whatever its lease says. */
const refusedAs = ({ standing }: Device): string | undefined => (standing === 'accepted' ? undefined : standing);

/** The slice that runs, and the one it is on its way to. */
function sliceOf({ desired, observed }: Device): string {
  if (!desired || desired.sliceId === observed?.sliceId) return observed?.sliceId ?? '-';
  return `${observed?.sliceId ?? 'none'} -> ${desired.sliceId}`;
}

export const renderAssignments = (assignments: readonly Assignment[]): string =>
  assignments.length === 0
    ? 'no assignment yet'
    : assignments
        .map(({ generation, sliceId, reason, createdAt, explanation }) =>
          [
            `generation ${generation}: ${sliceId}, ${createdAt}`,
            reason,
            table(explanation.candidates, [
              { title: '', value: (candidate) => (candidate.chosen ? '*' : ' ') },
              { title: 'slice', value: (candidate) => candidate.sliceId },
              {
                title: 'quality',
                value: (candidate) => (candidate.quality == null ? '-' : `${(100 * candidate.quality).toFixed(1)} %`),
                align: 'right',
              },
              { title: 'MB', value: (candidate) => (candidate.totalBytes / 1e6).toFixed(2), align: 'right' },
              { title: 'ms/token', value: (candidate) => candidate.predictedInterTokenMs?.toFixed(2) ?? '-', align: 'right' },
              { title: 'fits', value: (candidate) => (candidate.fits ? 'yes' : 'no') },
              { title: 'why', value: (candidate) => candidate.why },
            ]),
          ].join('\n'),
        )
        .join('\n\n');

export const renderInference = ({ attempts }: Inference): string =>
  table(attempts, [
    { title: '#', value: (attempt) => `${attempt.ordinal}`, align: 'right' },
    { title: 'device', value: (attempt) => attempt.deviceName ?? '-' },
    { title: 'slice', value: (attempt) => attempt.sliceId },
    { title: 'state', value: (attempt) => attempt.state },
    { title: 'ttft', value: (attempt) => (attempt.ttftMs == null ? '-' : `${attempt.ttftMs.toFixed(0)} ms`), align: 'right' },
    { title: 'why', value: (attempt) => attempt.error ?? attempt.reason ?? '' },
  ]);
