import { Priority, Role, type Answered, type Format, type GenerateRequest, type Output, type Sampling } from '@matfleet/protocol';
import type { ChatMessage, EngineRequest } from '../engine/engine-host.js';
import type { Claim } from './turn-queue.js';
import { invalid } from './serving-error.js';

const MAX_MESSAGES = 1_000;
/** Far above what any context holds; keeps a hostile prompt from the tokenizer. */
const MAX_TEXT_CHARACTERS = 1_000_000;

const ROLES: Partial<Record<Role, ChatMessage['role']>> = {
  [Role.ROLE_SYSTEM]: 'system',
  [Role.ROLE_USER]: 'user',
  [Role.ROLE_MODEL]: 'model',
};

const MAX_CALLER_CHARACTERS = 128;

const PRIORITIES: Partial<Record<Priority, Claim['priority']>> = {
  [Priority.PRIORITY_INTERACTIVE]: 'interactive',
  [Priority.PRIORITY_BACKGROUND]: 'background',
};

/** Whose turn the request asks for. */
export function toClaim({ caller = '', priority = Priority.PRIORITY_UNSPECIFIED }: GenerateRequest): Claim {
  if (caller.length > MAX_CALLER_CHARACTERS) throw invalid(`caller has ${caller.length} characters; the most is ${MAX_CALLER_CHARACTERS}`);
  return { caller, priority: PRIORITIES[priority] ?? 'normal' };
}

const MAX_ANSWERED_TOKENS = 131_072;
const MAX_STOPS = 4;
const MAX_STOP_CHARACTERS = 256;
const MAX_TOP_LOGPROBS = 20;
const MAX_FORMAT_CHARACTERS = 65_536;

/** Checks a request from the wire. Throws ServingError INVALID_ARGUMENT that names the message and part by their place, counted from 1. */
export function toEngineRequest(request: GenerateRequest): EngineRequest {
  const sampling = toSampling(request.sampling);
  return {
    ...(request.prompt === undefined ? { messages: toMessages(request) } : { text: toText(request) }),
    ...(request.maxTokens > 0 && { maxTokens: request.maxTokens }),
    ...(request.answered && { answeredIds: toAnswered(request.answered, request) }),
    ...(sampling && { sampling }),
    ...(request.sliceId && { sliceId: request.sliceId }),
    ...toOutput(request.output),
  };
}

function toAnswered({ tokenIds }: Answered, { maxTokens }: GenerateRequest): readonly number[] {
  const { length } = tokenIds;
  if (length > MAX_ANSWERED_TOKENS) throw invalid(`the answer so far has ${length} tokens; the most is ${MAX_ANSWERED_TOKENS}`);
  if (maxTokens > 0 && length >= maxTokens)
    throw invalid(`the answer so far has ${length} tokens and max_tokens is ${maxTokens}: nothing can follow`);
  return tokenIds;
}

function toText({ prompt = '', messages }: GenerateRequest): string {
  if (messages.length > 0) throw invalid('the request has messages and a prompt; it can have one of them');
  if (prompt.length > MAX_TEXT_CHARACTERS) throw invalid(`the prompt has ${prompt.length} characters; the most is ${MAX_TEXT_CHARACTERS}`);
  return prompt;
}

function toOutput(output: Output | undefined): Pick<EngineRequest, 'stop' | 'topLogprobs' | 'format'> {
  const { stop = [], topLogprobs } = output ?? {};
  const format = toFormat(output?.format);
  if (stop.length > MAX_STOPS) throw invalid(`the request has ${stop.length} stop texts; the most is ${MAX_STOPS}`);
  for (const text of stop)
    if (text === '' || text.length > MAX_STOP_CHARACTERS)
      throw invalid(`a stop text has ${text.length} characters; it must have 1 to ${MAX_STOP_CHARACTERS}`);
  if (topLogprobs !== undefined && topLogprobs > MAX_TOP_LOGPROBS)
    throw invalid(`top_logprobs is ${topLogprobs}; it must be 0 to ${MAX_TOP_LOGPROBS}`);
  return { ...(stop.length > 0 && { stop }), ...(topLogprobs !== undefined && { topLogprobs }), ...(format && { format }) };
}

function toFormat(format: Format | undefined): EngineRequest['format'] {
  if (!format) return undefined;
  if (!format.form) throw invalid('the format names neither a JSON schema nor a grammar');
  const { $case, value } = format.form;
  if (value.length > MAX_FORMAT_CHARACTERS) throw invalid(`the format has ${value.length} characters; the most is ${MAX_FORMAT_CHARACTERS}`);
  if ($case === 'grammar') return { grammar: value };
  try {
    return { jsonSchema: JSON.parse(value) as unknown, ...(format.orText && { orText: true }) };
  } catch (error) {
    throw invalid(`the JSON schema is no JSON: ${(error as Error).message}`);
  }
}

function toMessages(request: GenerateRequest): ChatMessage[] {
  if (request.messages.length === 0) throw invalid('the request has no messages');
  if (request.messages.length > MAX_MESSAGES) throw invalid(`the request has ${request.messages.length} messages; the most is ${MAX_MESSAGES}`);
  let characters = 0;
  const messages = request.messages.map((message, m): ChatMessage => {
    const role = ROLES[message.role];
    if (!role) throw invalid(`message ${m + 1} has no role that this agent knows`);
    if (role === 'system' && m > 0) throw invalid(`message ${m + 1} is a system message; only the first may be`);
    if (message.parts.length === 0) throw invalid(`message ${m + 1} has no parts`);
    const text = message.parts
      .map((part, p) => {
        // Image, audio and video parts arrive as parts without known content.
        if (part.content?.$case !== 'text') throw invalid(`part ${p + 1} of message ${m + 1} is not text; this agent answers text only`);
        return part.content.value;
      })
      .join('');
    characters += text.length;
    return { role, text };
  });
  if (characters > MAX_TEXT_CHARACTERS) throw invalid(`the messages have ${characters} characters; the most is ${MAX_TEXT_CHARACTERS}`);
  if (messages.at(-1)!.role !== 'user') throw invalid('the last message must be from the user');
  return messages;
}

/** Without a temperature, or with 0, the answer is greedy. */
function toSampling(sampling: Sampling | undefined): EngineRequest['sampling'] {
  if (!sampling) return undefined;
  const { temperature, topK, topP, seed } = sampling;
  if (temperature !== undefined && !(temperature >= 0 && temperature <= 100)) throw invalid(`temperature is ${temperature}; it must be 0 to 100`);
  if (topP !== undefined && !(topP >= 0 && topP <= 1)) throw invalid(`top_p is ${topP}; it must be 0 to 1`);
  if (!temperature) return undefined;
  return {
    temperature,
    ...(topK && { topK }),
    ...(topP && { topP }),
    ...(seed !== undefined && { seed: Number(BigInt.asUintN(53, seed)) }),
  };
}
