import { z } from 'zod';

const device = z.string().min(1);
const epoch = z.number().int().nonnegative();
const generation = z.number().int().nonnegative();
const slot = { generation, modelVersionId: z.string(), sliceId: z.string() };
const Slot = z.object(slot);

/**
 * One line of a history. What a device saw is in the order in which it happened there; histories of several observers may be read one after the other,
 * since no rule compares moments of two observers.
 */
export const HistoryEvent = z.discriminatedUnion('kind', [
  /** The device got a Welcome. */
  z.object({ kind: z.literal('session-opened'), device, epoch }),
  z.object({ kind: z.literal('session-closed'), device, epoch }),
  /** A desired document reached the device. */
  z.object({ kind: z.literal('desired-received'), device, epoch, ...slot }),
  z.object({ kind: z.literal('report-sent'), device, epoch, sequence: z.number().int(), generation, phase: z.string() }),
  z.object({ kind: z.literal('report-acknowledged'), device, epoch, sequence: z.number().int() }),
  /** The device put this slot into service. */
  z.object({ kind: z.literal('slot-applied'), device, ...slot }),
  /** The device began to carry out a command: an inference attempt. */
  z.object({ kind: z.literal('command-ran'), device, command: z.string() }),
  /** An operator's command was accepted: an inference, or one target of a rollout. */
  z.object({ kind: z.literal('command-submitted'), command: z.string() }),
  /** How it ended, as the control plane tells it; `effects`: how often it succeeded. */
  z.object({
    kind: z.literal('command-ended'),
    command: z.string(),
    outcome: z.enum(['succeeded', 'failed']),
    effects: z.number().int().nonnegative(),
  }),
  /** A desired document as the control plane keeps it, oldest first for each device. */
  z.object({ kind: z.literal('desired-written'), device, ...slot }),
  /** The device at the end; absent: it runs nothing. `gaveUp`: the generation that it reported as failed for good. */
  z.object({ kind: z.literal('device-ended'), device, runs: Slot.optional(), gaveUp: generation.optional() }),
  /** The device at the end as the control plane shows it. */
  z.object({ kind: z.literal('device-shown'), device, desired: Slot.optional(), observed: Slot.optional() }),
]);
export type HistoryEvent = z.infer<typeof HistoryEvent>;
export type HistorySlot = z.infer<typeof Slot>;
