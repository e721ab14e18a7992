import type { Format, Message } from '@matfleet/protocol';
import { Role } from '@matfleet/protocol';
import { badRequest } from './http-error.js';

/** A function that the model may call. */
export interface Tool {
  readonly name: string;
  readonly description?: string | undefined;
  /** JSON schema of its arguments; absent: an object of any members. */
  readonly parameters?: object | undefined;
}

/** `auto`: a call or plain text; `required`: some call; a name: a call of that function; `none`: text. */
export type ToolChoice = 'auto' | 'required' | 'none' | { readonly name: string };

/** How tools come to the model: described in a system turn, or not at all, for a model that was trained on its functions. */
export type ToolPrompt = 'describe' | 'none';

/** Holds an answer to calls of these tools: `{"name": …, "parameters": {…}}`. Undefined where it may be any text. */
export function toolFormat(tools: readonly Tool[], wanted: ToolChoice): Format | undefined {
  if (tools.length === 0 || wanted === 'none') return undefined;
  const callable = typeof wanted === 'object' ? tools.filter(({ name }) => name === wanted.name) : tools;
  if (callable.length === 0) throw badRequest(`tool_choice names a function that is not among the tools`, 'tool_choice');
  const schema = {
    anyOf: callable.map(({ name, parameters = { type: 'object' } }, index) => ({
      type: 'object',
      properties: { name: { const: name }, parameters: underRoot(parameters, `#/anyOf/${index}/properties/parameters`) },
      required: ['name', 'parameters'],
      additionalProperties: false,
    })),
  };
  return { form: { $case: 'jsonSchema', value: JSON.stringify(schema) }, orText: wanted === 'auto' };
}

/** A schema whose references count from its own root, moved to another place. */
function underRoot(schema: unknown, root: string): unknown {
  if (Array.isArray(schema)) return schema.map((one) => underRoot(one, root));
  if (typeof schema !== 'object' || schema === null) return schema;
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [
      key,
      key === '$ref' && typeof value === 'string' && value.startsWith('#') ? root + value.slice(1) : underRoot(value, root),
    ]),
  );
}

/** The messages with the tools described in front, in the words that Gemma's own guide uses. */
export function withTools(messages: readonly Message[], tools: readonly Tool[], wanted: ToolChoice, prompt: ToolPrompt): Message[] {
  if (tools.length === 0 || wanted === 'none' || prompt === 'none') return [...messages];
  const text = [
    'You have access to functions. If you decide to invoke any of the function(s), you MUST put it in the format of',
    '{"name": function name, "parameters": dictionary of argument name and its value}',
    '',
    'You SHOULD NOT include any other text in the response if you call a function',
    JSON.stringify(tools.map(({ name, description, parameters }) => ({ name, description, parameters }))),
  ].join('\n');
  const [first, ...rest] = messages;
  if (first?.role !== Role.ROLE_SYSTEM) return [{ role: Role.ROLE_SYSTEM, parts: [{ content: { $case: 'text', value: text } }] }, ...messages];
  return [{ ...first, parts: [...first.parts, { content: { $case: 'text', value: `\n\n${text}` } }] }, ...rest];
}

/** A call as the model writes it. */
export const callText = (name: string, parameters: unknown): string => JSON.stringify({ name, parameters });
/** A call's result as the model reads it, in the turn after its own. */
export const resultText = (name: string | undefined, content: string): string => `Result${name === undefined ? '' : ` of ${name}`}: ${content}`;

/** What became certain of an answer that may be a call. */
export interface CallPart {
  readonly content?: string;
  /** Comes once, before the arguments. */
  readonly name?: string;
  readonly arguments?: string;
}

/** A whole call; `text` are its arguments as they were written, incomplete where the answer was cut. */
export interface Call {
  readonly name: string;
  readonly text: string;
}

/** The call that an answer is, if it is one. */
export function calledBy(answer: string): Call | undefined {
  const { name, arguments: text = '' } = new CallReader().push(answer);
  return name === undefined ? undefined : { name, text };
}

const HEAD = /^\{\s*"name":\s*("(?:[^"\\]|\\.)*"),\s*"parameters":\s*/;

/** Reads an answer piece by piece: text, or one call whose arguments are passed on as they come. */
export class CallReader {
  #waiting = '';
  #kind: 'unknown' | 'text' | 'head' | 'arguments' = 'unknown';
  #called = false;

  /** The model has begun to call a function. */
  get called(): boolean {
    return this.#called;
  }

  push(text: string): CallPart {
    if (text === '') return {};
    if (this.#kind === 'unknown') this.#kind = text.startsWith('{') ? 'head' : 'text';
    if (this.#kind === 'text') return { content: text };
    this.#waiting += text;
    if (this.#kind === 'arguments') return this.#arguments();
    const head = HEAD.exec(this.#waiting);
    if (!head) return {};
    this.#kind = 'arguments';
    this.#called = true;
    this.#waiting = this.#waiting.slice(head[0].length);
    return { name: JSON.parse(head[1]!) as string, ...this.#arguments() };
  }

  /** The last closing brace belongs to the call, not to its arguments: it waits until another one comes. */
  #arguments(): CallPart {
    const last = this.#waiting.lastIndexOf('}');
    const certain = last < 0 ? this.#waiting : this.#waiting.slice(0, last);
    this.#waiting = last < 0 ? '' : this.#waiting.slice(last);
    return certain === '' ? {} : { arguments: certain };
  }
}
