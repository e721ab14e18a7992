import { Role, type Format, type GenerateRequest, type Message } from '@matfleet/protocol';
import { z } from 'zod';
import { badRequest } from '../http-error.js';
import { parse } from '../parse.js';
import { callText, resultText, toolFormat, withTools, type ToolPrompt } from '../tools.js';
import { toTurns, type Turn } from '../turns.js';

/** A request to Ollama's API, as the agent answers it. */
export interface OllamaRequest {
  readonly model: string;
  /** Absent: the caller only wants the model loaded, which it always is. */
  readonly generate: GenerateRequest | undefined;
  readonly stream: boolean;
  readonly numCtx: number | undefined;
  /** The answer may be a call of a function. */
  readonly mayCall: boolean;
}

const ignored = z.unknown().optional();
/** Accepted with the one value that changes nothing, so that an unmet wish never passes silently. */
const only = (value: number) => z.literal(value).optional();

const Options = z.strictObject({
  temperature: z.number().min(0).optional(),
  top_k: z.number().int().min(0).optional(),
  top_p: z.number().min(0).max(1).optional(),
  seed: z.number().int().optional(),
  /** Negative: no limit. */
  num_predict: z.number().int().optional(),
  stop: z.union([z.string(), z.array(z.string()).max(4)]).optional(),
  num_ctx: z.number().int().min(1).optional(),
  min_p: only(0),
  tfs_z: only(1),
  typical_p: only(1),
  repeat_penalty: only(1),
  presence_penalty: only(0),
  frequency_penalty: only(0),
  mirostat: only(0),
  ...Object.fromEntries(
    // How a server runs its model, which the agent decides itself.
    ['numa', 'num_batch', 'num_gpu', 'main_gpu', 'low_vram', 'f16_kv', 'use_mmap', 'use_mlock', 'num_thread', 'num_keep', 'repeat_last_n'].map(
      (name) => [name, ignored],
    ),
  ),
});

const common = {
  model: z.string(),
  stream: z.boolean().default(true),
  options: Options.default({}),
  logprobs: z.boolean().default(false),
  top_logprobs: z.number().int().min(0).max(20).default(0),
  think: z.literal(false, { error: 'this model does not think aloud' }).optional(),
  format: z.union([z.enum(['', 'json']), z.looseObject({})]).optional(),
  keep_alive: ignored,
};

const noImages = z.array(z.unknown()).max(0, { error: 'this agent answers text only' }).optional();

const ChatMessage = z.strictObject({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  content: z.string().default(''),
  images: noImages,
  thinking: ignored,
  tool_calls: z
    .array(z.looseObject({ function: z.looseObject({ name: z.string(), arguments: z.looseObject({}) }) }))
    .max(1, { error: 'this model makes one call at a time' })
    .optional(),
  tool_name: z.string().optional(),
});

const ChatRequest = z.strictObject({
  ...common,
  messages: z.array(ChatMessage).max(1_000).default([]),
  tools: z
    .array(
      z.strictObject({
        type: z.literal('function'),
        function: z.strictObject({
          name: z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'up to 64 letters, digits, underscores or dashes'),
          description: z.string().optional(),
          parameters: z.looseObject({}).optional(),
        }),
      }),
    )
    .max(128)
    .default([]),
});

const GenerateText = z.strictObject({
  ...common,
  prompt: z.string().default(''),
  system: z.string().default(''),
  raw: z.boolean().default(false),
  suffix: z.literal('').optional(),
  template: z.literal('').optional(),
  context: z.array(z.number()).max(0).optional(),
  images: noImages,
});

const message = (role: Role, value: string): Message => ({ role, parts: [{ content: { $case: 'text', value } }] });

export function toOllamaChat(body: unknown, toolPrompt: ToolPrompt): OllamaRequest {
  const request = parse(ChatRequest, body);
  const tools = request.tools.map((tool) => tool.function);
  const calls = toolFormat(tools, 'auto');
  if (calls && toFormat(request.format)) throw badRequest('an answer is held to tools or to a format, not to both', 'tools');
  const messages = withTools(toTurns(request.messages.map(toTurn)), tools, 'auto', toolPrompt);
  return toRequest(request, request.messages.length > 0 ? { messages, prompt: undefined } : undefined, calls);
}

function toTurn({ role, content, tool_calls: [call] = [], tool_name }: z.infer<typeof ChatMessage>): Turn {
  if (role === 'tool') return { role: 'result', text: resultText(tool_name, content) };
  if (role === 'assistant') return { role: 'model', text: call ? callText(call.function.name, call.function.arguments) : content };
  return { role, text: content };
}

function toFormat(format: z.infer<(typeof common)['format']>): Format | undefined {
  if (format === undefined || format === '') return undefined;
  return { form: { $case: 'jsonSchema', value: JSON.stringify(format === 'json' ? { type: 'object' } : format) }, orText: false };
}

export function toOllamaGenerate(body: unknown): OllamaRequest {
  const request = parse(GenerateText, body);
  if (request.raw && request.system !== '') throw badRequest('raw: true takes the prompt alone, without system', 'system');
  if (request.prompt === '') return toRequest(request, undefined);
  if (request.raw) return toRequest(request, { messages: [], prompt: request.prompt });
  const system = request.system === '' ? [] : [message(Role.ROLE_SYSTEM, request.system)];
  return toRequest(request, { messages: [...system, message(Role.ROLE_USER, request.prompt)], prompt: undefined });
}

function toRequest(
  { model, stream, options, logprobs, top_logprobs, format }: z.infer<z.ZodObject<typeof common>>,
  input: Pick<GenerateRequest, 'messages' | 'prompt'> | undefined,
  calls?: Format,
): OllamaRequest {
  const held = calls ?? toFormat(format);
  const { temperature, top_k, top_p, seed, num_predict = -1, stop = [], num_ctx } = options;
  return {
    model,
    stream,
    numCtx: num_ctx,
    mayCall: calls !== undefined,
    generate: input && {
      requestId: '',
      ...input,
      sampling:
        temperature === undefined
          ? undefined
          : { temperature, topK: top_k, topP: top_p, ...(seed !== undefined && { seed: BigInt.asUintN(64, BigInt(seed)) }) },
      maxTokens: Math.max(0, num_predict),
      task: '',
      output: { stop: typeof stop === 'string' ? [stop] : stop, ...(logprobs && { topLogprobs: top_logprobs }), ...(held && { format: held }) },
    },
  };
}
