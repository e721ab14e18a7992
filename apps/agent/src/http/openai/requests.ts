import type { Format, GenerateRequest } from '@matfleet/protocol';
import { z } from 'zod';
import { badRequest } from '../http-error.js';
import { parse } from '../parse.js';
import { callText, resultText, toolFormat, withTools, type ToolChoice, type ToolPrompt } from '../tools.js';
import { toTurns, type Turn } from '../turns.js';

/** A request to OpenAI's API, as the agent answers it. */
export interface OpenAiRequest {
  readonly model: string;
  readonly generate: GenerateRequest;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** The answer may be a call of a function. */
  readonly mayCall: boolean;
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
  /** Callers take turns. */
  user: z.string().max(128).nullish(),
};

const Text = z.union([
  z.string(),
  z
    .array(z.strictObject({ type: z.literal('text', { error: 'this agent answers text only' }), text: z.string() }))
    .transform((parts) => parts.map(({ text }) => text).join('')),
]);

const ToolCall = z.strictObject({
  id: z.string(),
  type: z.literal('function'),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
  /** Of a message that was put together from a stream. */
  index: ignored,
});

const ChatMessage = z.discriminatedUnion('role', [
  z.strictObject({ role: z.enum(['system', 'developer', 'user']), content: Text, name: z.string().optional() }),
  z.strictObject({
    role: z.literal('assistant'),
    content: Text.nullish(),
    name: z.string().optional(),
    refusal: z.null().optional(),
    tool_calls: z.array(ToolCall).max(1, { error: 'this model makes one call at a time' }).optional(),
  }),
  z.strictObject({ role: z.literal('tool'), content: Text, tool_call_id: z.string() }),
]);

const ToolName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'up to 64 letters, digits, underscores or dashes');
const FunctionTool = z.strictObject({
  type: z.literal('function'),
  function: z.strictObject({
    name: ToolName,
    description: z.string().optional(),
    parameters: z.looseObject({}).optional(),
    strict: z.boolean().nullish(),
  }),
});
const Choice = z.union([
  z.enum(['auto', 'none', 'required']),
  z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: z.string() }) }).transform(({ function: { name } }) => ({ name })),
]);

const ResponseFormat = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    json_schema: z.strictObject({
      name: z.string(),
      description: z.string().optional(),
      schema: z.looseObject({}),
      strict: z.boolean().nullish(),
    }),
  }),
]);

const ChatRequest = z.strictObject({
  ...common,
  messages: z.array(ChatMessage).min(1).max(1_000),
  max_completion_tokens: z.number().int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(20).nullish(),
  response_format: ResponseFormat.nullish(),
  /** As llama.cpp has it: a grammar in its notation. */
  grammar: z.string().nullish(),
  tools: z.array(FunctionTool).max(128).nullish(),
  tool_choice: Choice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
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

export function toChatRequest(body: unknown, toolPrompt: ToolPrompt): OpenAiRequest {
  const request = parse(ChatRequest, body);
  if (request.top_logprobs != null && !request.logprobs) throw badRequest('top_logprobs needs logprobs: true', 'top_logprobs');
  const topLogprobs = request.logprobs ? (request.top_logprobs ?? 0) : undefined;
  const tools = (request.tools ?? []).map((tool) => tool.function);
  const wanted: ToolChoice = request.tool_choice ?? 'auto';
  const calls = toolFormat(tools, wanted);
  const format = toFormat(request);
  if (calls && format) throw badRequest('an answer is held to tools or to a format, not to both', 'tools');
  const messages = withTools(toTurns(request.messages.map(toTurn)), tools, wanted, toolPrompt);
  return {
    ...toRequest(request, { messages, prompt: undefined }, request.max_completion_tokens ?? request.max_tokens, topLogprobs, calls ?? format),
    mayCall: calls !== undefined,
  };
}

function toFormat({ response_format, grammar }: z.infer<typeof ChatRequest>): Format | undefined {
  const schema =
    response_format?.type === 'json_schema'
      ? response_format.json_schema.schema
      : response_format?.type === 'json_object'
        ? { type: 'object' }
        : undefined;
  if (grammar != null && schema) throw badRequest('an answer is held to a response_format or to a grammar, not to both', 'grammar');
  if (grammar != null) return { form: { $case: 'grammar', value: grammar }, orText: false };
  return schema && { form: { $case: 'jsonSchema', value: JSON.stringify(schema) }, orText: false };
}

const ROLES = { system: 'system', developer: 'system', user: 'user' } as const;

function toTurn(message: z.infer<typeof ChatMessage>, _: number, all: readonly z.infer<typeof ChatMessage>[]): Turn {
  switch (message.role) {
    case 'assistant': {
      const [call] = message.tool_calls ?? [];
      return { role: 'model', text: call ? callText(call.function.name, parsed(call.function.arguments)) : (message.content ?? '') };
    }
    case 'tool': {
      const call = all.flatMap((one) => (one.role === 'assistant' ? (one.tool_calls ?? []) : [])).find(({ id }) => id === message.tool_call_id);
      if (!call) throw badRequest(`no call before it has the id ${JSON.stringify(message.tool_call_id)}`, 'messages.tool_call_id');
      return { role: 'result', text: resultText(call.function.name, message.content) };
    }
    default:
      return { role: ROLES[message.role], text: message.content };
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw badRequest('the arguments of a call are no JSON', 'messages.tool_calls');
  }
}

export function toCompletionRequest(body: unknown): OpenAiRequest {
  const request = parse(CompletionRequest, body);
  const input = { messages: [], prompt: request.prompt };
  return { ...toRequest(request, input, request.max_tokens ?? 16, request.logprobs ?? undefined, undefined), mayCall: false };
}

function toRequest(
  { model, stream, stream_options, temperature, top_p, top_k, seed, stop, user }: z.infer<z.ZodObject<typeof common>>,
  input: Pick<GenerateRequest, 'messages' | 'prompt'>,
  maxTokens: number | null | undefined,
  topLogprobs: number | undefined,
  format: Format | undefined,
): Omit<OpenAiRequest, 'mayCall'> {
  return {
    model,
    stream: stream ?? false,
    includeUsage: stream_options?.include_usage ?? false,
    generate: {
      requestId: '',
      ...(user != null && { caller: user }),
      ...input,
      sampling:
        temperature == null
          ? undefined
          : {
              temperature,
              ...(top_p != null && { topP: top_p }),
              ...(top_k != null && { topK: top_k }),
              ...(seed != null && { seed: BigInt.asUintN(64, BigInt(seed)) }),
            },
      maxTokens: maxTokens ?? 0,
      task: '',
      output: {
        stop: typeof stop === 'string' ? [stop] : (stop ?? []),
        ...(topLogprobs !== undefined && { topLogprobs }),
        ...(format && { format }),
      },
    },
  };
}
