import { z } from 'zod';
import type { ChatMessage, Sampling } from '../fleet/device-links.js';

const TEXT_MAX = 200_000;

export const SubmitInference = z
  .object({
    messages: z
      .array(z.object({ role: z.enum(['system', 'user', 'model']), text: z.string().min(1).max(TEXT_MAX) }))
      .min(1)
      .max(200)
      .optional(),
    prompt: z.string().min(1).max(TEXT_MAX).optional(),
    /** Names the task, so that the slice table's quality for it counts. */
    task: z.string().min(1).max(100).optional(),
    qualityFloor: z.number().min(0).max(1).optional(),
    deadlineMs: z.number().int().min(100).max(600_000).default(60_000),
    maxTokens: z.number().int().min(1).max(32_768).optional(),
    sampling: z
      .object({
        temperature: z.number().min(0).max(10).optional(),
        topK: z.number().int().min(1).max(100_000).optional(),
        topP: z.number().gt(0).max(1).optional(),
        seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
      })
      .optional(),
  })
  .refine((body) => (body.messages === undefined) !== (body.prompt === undefined), 'give either messages or prompt');
export type SubmitInference = z.infer<typeof SubmitInference>;

export type InferenceState = 'queued' | 'running' | 'succeeded' | 'failed';
/** `lost`: the control plane that watched it ended. `ignored`: it answered after another attempt had taken over. */
export type AttemptState = 'running' | 'succeeded' | 'failed' | 'lost' | 'ignored';

export interface InferenceRequest {
  readonly messages: readonly ChatMessage[];
  readonly sampling: Sampling | null;
  readonly maxTokens: number;
}

export interface Attempt {
  readonly id: string;
  readonly ordinal: number;
  readonly deviceId: string;
  readonly deviceName: string;
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly state: AttemptState;
  readonly reason: string;
  readonly error: string | null;
  readonly ttftMs: number | null;
  readonly outputTokens: number | null;
  readonly startedAt: Date;
  readonly finishedAt: Date | null;
}

export interface Inference {
  readonly id: string;
  readonly state: InferenceState;
  readonly task: string | null;
  readonly qualityFloor: number | null;
  readonly deadlineAt: Date;
  readonly answer: string | null;
  readonly error: string | null;
  readonly answeredBy: string | null;
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
  readonly attempts: readonly Attempt[];
}

/** What an operator sees: who answers stands beside the answer. */
export interface InferenceView extends Omit<Inference, 'answeredBy'> {
  readonly modelVersionId: string | null;
  readonly sliceId: string | null;
  readonly deviceId: string | null;
}

/** `liveText` is what the running attempt has written so far. */
export function viewOf(inference: Inference, liveText: string | undefined): InferenceView {
  const { answeredBy, ...rest } = inference;
  const shown =
    inference.attempts.find((attempt) => attempt.id === answeredBy) ?? inference.attempts.findLast((attempt) => attempt.state === 'running');
  return {
    ...rest,
    answer: inference.answer ?? (inference.state === 'running' ? (liveText ?? null) : null),
    modelVersionId: shown?.modelVersionId ?? null,
    sliceId: shown?.sliceId ?? null,
    deviceId: shown?.deviceId ?? null,
  };
}
