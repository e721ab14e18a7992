import { Role, type GenerateRequest, type Message } from '@matfleet/protocol';
import { z } from 'zod';
import { badRequest } from '../http-error.js';
import { parse } from '../parse.js';

/** A request to OpenAI's API, as the agent answers it. */
export interface OpenAiRequest {
  readonly model: string;
  readonly generate: GenerateRequest;
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

/** Accepted with the one value that changes nothing, so that an unmet wish never passes silently. */
const only = <T extends z.core.util.Literal>(...values: T[]) => z.literal(values).nullish();
const ignored = z.unknown().optional();

const common = {
  model: z.string(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.boolean().optional() }).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  /** As llama.cpp and vLLM have it beside OpenAI's own. */
  top_k: z.number().int().min(0).nullish(),
  seed: z.number().int().nullish(),
  max_tokens: z.number().int().min(1).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(4)]).nullish(),
  n: only(1),
  presence_penalty: only(0),
  frequency_penalty: only(0),
  logit_bias: z.strictObject({}).nullish(),
  user: ignored,
};

const Text = z.union([
  z.string(),
  z
    .array(z.strictObject({ type: z.literal('text', { error: 'this agent answers text only' }), text: z.string() }))
    .transform((parts) => parts.map(({ text }) => text).join('')),
]);

const ChatMessage = z.strictObject({ role: z.enum(['system', 'developer', 'user', 'assistant']), content: Text, name: z.string().optional() });

const ChatRequest = z.strictObject({
  ...common,
  messages: z.array(ChatMessage).min(1).max(1_000),
  max_completion_tokens: z.number().int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(20).nullish(),
  response_format: z.strictObject({ type: z.literal('text') }).nullish(),
  modalities: z.tuple([z.literal('text')]).nullish(),
  store: only(false),
  metadata: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
});

const CompletionRequest = z.strictObject({
  ...common,
  prompt: z.union([z.string(), z.tuple([z.string()]).transform(([prompt]) => prompt)]),
  logprobs: z.number().int().min(0).max(20).nullish(),
  best_of: only(1),
  echo: only(false),
  suffix: only(''),
});

export function toChatRequest(body: unknown): OpenAiRequest {
  const request = parse(ChatRequest, body);
  if (request.top_logprobs != null && !request.logprobs) throw badRequest('top_logprobs needs logprobs: true', 'top_logprobs');
  const topLogprobs = request.logprobs ? (request.top_logprobs ?? 0) : undefined;
  return toRequest(
    request,
    { messages: toMessages(request.messages), prompt: undefined },
    request.max_completion_tokens ?? request.max_tokens,
    topLogprobs,
  );
}

export function toCompletionRequest(body: unknown): OpenAiRequest {
  const request = parse(CompletionRequest, body);
  return toRequest(request, { messages: [], prompt: request.prompt }, request.max_tokens ?? 16, request.logprobs ?? undefined);
}

function toRequest(
  { model, stream, stream_options, temperature, top_p, top_k, seed, stop }: z.infer<z.ZodObject<typeof common>>,
  input: Pick<GenerateRequest, 'messages' | 'prompt'>,
  maxTokens: number | null | undefined,
  topLogprobs: number | undefined,
): OpenAiRequest {
  return {
    model,
    stream: stream ?? false,
    includeUsage: stream_options?.include_usage ?? false,
    generate: {
      requestId: '',
      ...input,
      sampling:
        temperature == null
          ? undefined
          : {
              temperature,
              topP: top_p ?? 1,
              topK: top_k ?? 0,
              ...(seed != null && { seed: BigInt.asUintN(64, BigInt(seed)) }),
            },
      maxTokens: maxTokens ?? 0,
      task: '',
      output: { stop: typeof stop === 'string' ? [stop] : (stop ?? []), ...(topLogprobs !== undefined && { topLogprobs }) },
    },
  };
}

const ROLES = { system: Role.ROLE_SYSTEM, developer: Role.ROLE_SYSTEM, user: Role.ROLE_USER, assistant: Role.ROLE_MODEL } as const;

const toMessages = (messages: readonly z.infer<typeof ChatMessage>[]): Message[] =>
  messages.map(({ role, content }) => ({ role: ROLES[role], parts: [{ content: { $case: 'text', value: content } }] }));
