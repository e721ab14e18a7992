import { z } from 'zod';

/** How far the trial of a slice is. The last three end it. */
export const ActivationStep = z.enum(['verifying', 'preparing', 'starting', 'checking', 'committed', 'rejected', 'reverted']);
export type ActivationStep = z.infer<typeof ActivationStep>;

/** What ended a trial: decides whether another try makes sense, there or elsewhere. */
export const FailureKind = z.enum(['fetch', 'verify', 'disk', 'start', 'golden', 'latency', 'memory', 'crash-loop', 'interrupted']);
export type FailureKind = z.infer<typeof FailureKind>;

/** `matched` of `total`; an answer counts up to its first wrong token. */
export const Agreement = z.object({ total: z.number().int().nonnegative(), matched: z.number().int().nonnegative() });
export type Agreement = z.infer<typeof Agreement>;

/** The trial of one generation's slice, and what was measured in it. */
export const Activation = z.object({
  generation: z.number().int().positive(),
  step: ActivationStep,
  reason: z.string().optional(),
  failure: FailureKind.optional(),
  /** Of the manifest's golden prompts for this slice. */
  prompts: Agreement.optional(),
  tokens: Agreement.optional(),
  /** Of the tokens that the slice active before gives to its own golden prompts, those that the candidate gives too. */
  previousTokens: Agreement.optional(),
  /** Of the slowest golden prompt. */
  ttftMs: z.number().optional(),
  /** Median step after an answer's first token, one token a pass. */
  interTokenMs: z.number().optional(),
  residentBytes: z.number().optional(),
  /** The old engine had to stop before the candidate could start. */
  replacedFirst: z.boolean().optional(),
});
export type Activation = z.infer<typeof Activation>;

export const began = (generation: number): Activation => ({ generation, step: 'verifying' });

/** What was measured stays; a failure that came before any trial makes a record too. */
export const ended = (
  trial: Activation | undefined,
  generation: number,
  step: 'rejected' | 'reverted',
  reason: string,
  failure: FailureKind | undefined,
): Activation => ({ ...(trial?.generation === generation && trial), generation, step, reason, ...(failure && { failure }) });

/** A step towards a slice failed, for a known reason. `final`: the slice is wrong, not the moment, and trying it again would end the same way. */
export class StepFailed extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
    readonly final: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'StepFailed';
  }
}

const DISK_CODES = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'];

/** Of whatever a step threw; undefined for a failure of no known kind. */
export function failureKindOf(error: unknown): FailureKind | undefined {
  for (let at = error as NodeJS.ErrnoException | undefined; at; at = at.cause as NodeJS.ErrnoException | undefined) {
    if (at instanceof StepFailed) return at.kind;
    if (DISK_CODES.includes(at.code ?? '')) return 'disk';
  }
  return undefined;
}

export interface GoldenAnswer {
  readonly expected: readonly number[];
  readonly found: readonly number[];
}

/** How much of the expected answers was found, by prompts and by tokens. */
export function agreementOf(answers: readonly GoldenAnswer[]): { readonly prompts: Agreement; readonly tokens: Agreement } {
  const whole = answers.filter(({ expected, found }) => found.length === expected.length && leading({ expected, found }) === expected.length);
  return {
    prompts: { total: answers.length, matched: whole.length },
    tokens: {
      total: answers.reduce((sum, { expected }) => sum + expected.length, 0),
      matched: answers.reduce((sum, answer) => sum + leading(answer), 0),
    },
  };
}

/** Tokens before the first difference. */
function leading({ expected, found }: GoldenAnswer): number {
  const at = expected.findIndex((id, i) => found[i] !== id);
  return at < 0 ? expected.length : at;
}

/** What a trial may cost. */
export interface TrialBounds {
  /** Of the median step; no bound when absent. */
  readonly mostInterTokenMs?: number | undefined;
  /** Of the candidate's process; 0 when nothing bounds it. */
  readonly memoryLimitBytes: number;
}

/** Why a candidate that answered may not serve; undefined when it may. Wrong answers come first: they never become right. */
export function verdict(trial: Activation, sliceId: string, { mostInterTokenMs, memoryLimitBytes }: TrialBounds): StepFailed | undefined {
  const { prompts, tokens, interTokenMs, residentBytes } = trial;
  if (prompts && tokens && prompts.matched < prompts.total)
    return new StepFailed(
      'golden',
      `slice ${sliceId} answered ${prompts.matched} of ${prompts.total} golden prompts and ${tokens.matched} of ${tokens.total} of their tokens`,
      true,
    );
  if (memoryLimitBytes > 0 && residentBytes !== undefined && residentBytes > memoryLimitBytes)
    return new StepFailed('memory', `slice ${sliceId} holds ${mb(residentBytes)}, its limit is ${mb(memoryLimitBytes)}`, true);
  if (mostInterTokenMs !== undefined && interTokenMs !== undefined && interTokenMs > mostInterTokenMs)
    return new StepFailed(
      'latency',
      `slice ${sliceId} took ${interTokenMs.toFixed(1)} ms per token of its golden prompts, at most ${mostInterTokenMs} ms are wanted`,
      false,
    );
  return undefined;
}

/** Whether the candidate may start beside the slice that runs, or only in its place: then the old engine stops, last of all. */
export const mayStartBeside = (neededBytes: number, availableBytes: number): boolean => neededBytes <= availableBytes;

const mb = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
