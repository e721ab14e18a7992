import { z } from 'zod';

/** Milliseconds, up to a month. */
const Duration = z
  .number()
  .int()
  .min(0)
  .max(31 * 86_400_000);
const Percent = z.number().min(0).max(100);
const Instant = z.iso.datetime({ offset: true });
/** Milliseconds since 1970. */
export const instantMs = (text: string): number => z.coerce.date().parse(text).getTime();

export const WAVES_MAX = 500;

/** A part of the devices, in order. Without `count`, `percent` or `filter` it takes all that is left. */
export const WavePlan = z
  .strictObject({
    name: z.string().min(1).max(63).optional(),
    count: z.number().int().positive().optional(),
    /** Of all devices of the rollout. */
    percent: Percent.gt(0).optional(),
    /** Those of what is left that it means, when the rollout is made. */
    filter: z.string().max(2_000).optional(),
    /** Does not begin before. */
    notBefore: Instant.optional(),
    /** Begins only when somebody approves it. */
    approval: z.boolean().default(false),
    /** After its last device: watched for so long before the gates decide. */
    observeMs: Duration.default(0),
  })
  .refine((wave) => [wave.count, wave.percent, wave.filter].filter((part) => part !== undefined).length <= 1, {
    message: 'a wave takes a count, a percentage or a filter, not several',
  });
export type WavePlan = z.infer<typeof WavePlan>;

/** What a device says that went wrong; `device` where it does not tell the class. */
const DEVICE_FAILURES = ['fetch', 'verify', 'disk', 'start', 'golden', 'latency', 'memory', 'crash-loop', 'interrupted', 'device'] as const;
export const FAILURE_CLASSES = ['unreachable', 'unfit', 'timeout', ...DEVICE_FAILURES] as const;
export const FailureClass = z.enum(FAILURE_CLASSES);
/** Why a device did not take the version. `unreachable`: never came. `unfit`: no slice fits it. `timeout`: it took the document and was not done in time. */
export type FailureClass = z.infer<typeof FailureClass>;

const Retry = z.strictObject({ times: z.number().int().min(0).max(10), backoffMs: Duration.default(60_000) });

/** What is done when a rollout goes wrong. */
export const Reaction = z.enum(['pause', 'abort', 'roll-back']);
export type Reaction = z.infer<typeof Reaction>;

const PerMinute = z.number().positive().max(600_000);
export const Rate = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('constant'), perMinute: PerMinute }),
  /** `basePerMinute`, times `factor` for every `everySucceeded` devices that run it. */
  z.strictObject({
    kind: z.literal('exponential'),
    basePerMinute: PerMinute,
    factor: z.number().min(1).max(10).default(2),
    everySucceeded: z.number().int().positive(),
    maxPerMinute: PerMinute.default(600_000),
  }),
]);
export type Rate = z.infer<typeof Rate>;

/** Compared with the devices that still run the version before. Left out: not asked. */
export const Gates = z.strictObject({
  /** p95 of the time to first token: at most so many times the control group's. */
  ttftRatio: z.number().gt(1).max(100).optional(),
  interTokenRatio: z.number().gt(1).max(100).optional(),
  /** Failed share of inferences: at most so many percent points above the control group's. */
  errorPoints: Percent.optional(),
  /** Share of the golden tokens of the version before that this one gives too. */
  agreementPercent: Percent.optional(),
  /** Fewer answers than this, on either side, say nothing about latency and errors. */
  minSample: z.number().int().positive().default(20),
  /** What is done when a gate cannot be judged. */
  unknown: z.enum(['pass', 'pause']).default('pass'),
  /** What is done when one fails. */
  then: Reaction.default('roll-back'),
});
export type Gates = z.infer<typeof Gates>;

/** How devices are brought to a version. Everything has a default: an empty plan is one wave of all devices. */
export const RolloutPlan = z
  .strictObject({
    waves: z
      .array(WavePlan)
      .min(1)
      .max(WAVES_MAX)
      .default([{ approval: false, observeMs: 0 }]),
    /** Of a wave's devices, so many must run it before the next begins; else the rollout pauses. */
    success: z.strictObject({ percent: Percent.default(95) }).prefault({}),
    /** More failures than this, beyond chance, in a sample of at least so many: domain/rollout-threshold.ts. */
    error: z
      .strictObject({ percent: Percent.default(10), minSample: z.number().int().positive().default(5), then: Reaction.default('roll-back') })
      .prefault({}),
    gates: Gates.prefault({}),
    /** Left out: as fast as it goes. */
    rate: Rate.optional(),
    /** `reachMs`: for a device to come by, from the start of its wave. `doneMs`: from its document to the version running. */
    timeouts: z.strictObject({ reachMs: Duration.optional(), doneMs: Duration.optional() }).prefault({}),
    retries: z.partialRecord(FailureClass, Retry).default({}),
    /** `soft`: a device changes over when it has nothing to answer. At `forceAt`, if given, it must. */
    mode: z.enum(['forced', 'soft']).default('forced'),
    forceAt: Instant.optional(),
    /** Brings the bytes and leaves what runs. */
    downloadOnly: z.boolean().default(false),
    /** Devices change over only inside, on their own clock; they fetch before. */
    window: z
      .strictObject({
        /** When it opens: five fields, minute to weekday. */
        cron: z.string().min(9).max(100),
        durationMs: Duration.min(60_000),
        prefetch: z.boolean().default(true),
        /** Of devices that tell none. */
        timeZone: z.string().max(64).default('UTC'),
      })
      .optional(),
    /** `dynamic`: also devices that come to match while it runs, and until then in any case. */
    membership: z.strictObject({ kind: z.enum(['frozen', 'dynamic']).default('frozen'), until: Instant.optional() }).prefault({}),
    /** Of the devices with one value of this label, at most so many at once. */
    spread: z.strictObject({ label: z.string().min(1).max(63), atOnce: z.number().int().positive().default(1) }).optional(),
    /** Pauses when so many of the devices that were changed in this wave have gone. */
    brake: z.strictObject({ percent: Percent.gt(0).default(20), minDevices: z.number().int().positive().default(3) }).prefault({}),
    /** When another rollout has a device: let it finish there first, or take the device over. */
    overlap: z.enum(['wait', 'supersede']).default('wait'),
    /** Nothing begins before somebody approves the rollout. */
    approval: z.boolean().default(false),
    /** Chooses who is in which wave; the same seed chooses the same. */
    seed: z.number().int().min(0).max(0xffff_ffff).default(1),
  })
  .refine((plan) => plan.forceAt === undefined || plan.mode === 'soft', { path: ['forceAt'], message: 'only a soft rollout is forced at a time' })
  .refine((plan) => plan.membership.until === undefined || plan.membership.kind === 'dynamic', {
    path: ['membership', 'until'],
    message: 'only a dynamic membership stays open until a time',
  });
export type RolloutPlan = z.infer<typeof RolloutPlan>;
/** As an operator writes it. */
export type RolloutPlanInput = z.input<typeof RolloutPlan>;
