import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { nanoPackage, StandaloneAgent } from '@matfleet/harness';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { Ollama } from 'ollama';
import OpenAI, { APIError } from 'openai';

// Calls of functions and answers in a given form, through both official clients. nano was trained to call functions like these.
let agent: StandaloneAgent;
let openai: OpenAI;
let ollama: Ollama;

const fn = (name: string, properties: Record<string, object>) => ({
  type: 'function' as const,
  function: {
    name,
    description: name.replace('_', ' '),
    parameters: { type: 'object', properties, required: Object.keys(properties), additionalProperties: false },
  },
});
const temperature = fn('set_temperature', { zone: { type: 'string' }, celsius: { type: 'integer', minimum: -40, maximum: 40 } });
const door = fn('lock_door', {
  door: { type: 'string', enum: ['front gate', 'main entrance', 'delivery door'] },
  state: { enum: ['locked', 'unlocked'] },
});
const tools = [temperature, door];
const ask = { model: 'nano', messages: [{ role: 'user' as const, content: 'Freezer room to -22 please' }] };
const wanted = { zone: 'freezer room', celsius: -22 };

beforeAll(async () => {
  agent = await StandaloneAgent.start({
    ...{ model: await nanoPackage('int8'), modelName: 'nano', sliceId: 's-512', contextTokens: 192 },
    args: ['--tool-prompt', 'none'],
  });
  openai = new OpenAI({ baseURL: `${agent.url}/v1`, apiKey: 'unused', maxRetries: 0 });
  ollama = new Ollama({ host: agent.url });
}, 120_000);

afterAll(() => agent.stop());

describe('tools', () => {
  it('are called with arguments of their schema, at once and as a stream', async () => {
    const { choices } = await openai.chat.completions.create({ ...ask, tools });
    expect(choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    const [call] = choices[0]!.message.tool_calls!;
    expect(call).toMatchObject({ type: 'function', function: { name: 'set_temperature' } });
    expect(call?.type === 'function' && JSON.parse(call.function.arguments)).toEqual(wanted);

    const runner = openai.chat.completions.stream({ ...ask, tools });
    const pieces: string[] = [];
    runner.on('tool_calls.function.arguments.delta', ({ arguments_delta }) => pieces.push(arguments_delta));
    const [streamed] = (await runner.finalChatCompletion()).choices[0]!.message.tool_calls!;
    expect(streamed).toMatchObject({ function: { name: 'set_temperature', arguments: JSON.stringify(wanted) } });
    expect(pieces.length).toBeGreaterThan(3);
  });

  it('can be demanded, one by name too, against what the model would say', async () => {
    const call = async (content: string, choice: 'required' | { type: 'function'; function: { name: string } }) => {
      const { choices } = await openai.chat.completions.create({ ...ask, messages: [{ role: 'user', content }], tools, tool_choice: choice });
      const [made] = choices[0]!.message.tool_calls!;
      if (made?.type !== 'function') throw new Error('no call');
      return { name: made.function.name, arguments: JSON.parse(made.function.arguments) as unknown };
    };
    const named = await call('Freezer room to -22 please', { type: 'function', function: { name: 'lock_door' } });
    expect(named.name).toBe('lock_door');
    expect(new Ajv2020().validate(door.function.parameters, named.arguments)).toBe(true);
    expect(['set_temperature', 'lock_door']).toContain((await call("What's for lunch today?", 'required')).name);
  });

  it('give their results back to the model in the next turn', async () => {
    const { choices } = await openai.chat.completions.create({ ...ask, tools });
    const [call] = choices[0]!.message.tool_calls!;
    const messages = [...ask.messages, choices[0]!.message, { role: 'tool' as const, tool_call_id: call!.id, content: 'done' }];
    const after = await openai.chat.completions.create({ ...ask, messages, tools, max_tokens: 5 });
    expect(after.usage!.prompt_tokens).toBeGreaterThan(40);
    const stray = openai.chat.completions.create({ ...ask, messages: [{ role: 'tool', tool_call_id: 'nobody', content: 'done' }] });
    await expect(stray).rejects.toMatchObject({ status: 400, message: expect.stringContaining('"nobody"') });
  });

  it("are called through Ollama's client", async () => {
    const answer = await ollama.chat({ ...ask, tools });
    expect(answer.message).toMatchObject({ content: '', tool_calls: [{ function: { name: 'set_temperature', arguments: wanted } }] });
    const calls = [];
    for await (const part of await ollama.chat({ ...ask, tools, stream: true })) calls.push(...(part.message.tool_calls ?? []));
    expect(calls).toEqual([{ function: { name: 'set_temperature', arguments: wanted } }]);
    const messages = [...ask.messages, answer.message, { role: 'tool', tool_name: 'set_temperature', content: 'done' }];
    expect((await ollama.chat({ model: 'nano', messages, tools, options: { num_predict: 3 } })).prompt_eval_count).toBeGreaterThan(40);
  });
});

describe('a form of the answer', () => {
  const schema = {
    type: 'object',
    properties: {
      zone: { type: 'string', maxLength: 12 },
      on: { type: 'boolean' },
      level: { type: 'integer', minimum: 1, maximum: 9 },
      tags: { type: 'array', items: { enum: ['a', 'b'] }, maxItems: 3 },
    },
    required: ['zone', 'on', 'level', 'tags'],
    additionalProperties: false,
  };
  const valid = (text: string): boolean => new Ajv2020().validate(schema, JSON.parse(text));

  it('is kept by a model that knows nothing of it, greedy and sampled', async () => {
    const response_format = { type: 'json_schema' as const, json_schema: { name: 'lights', schema, strict: true } };
    for (const temperature of [0, 1.5])
      for (let seed = 0; seed < 4; seed++) {
        const { choices } = await openai.chat.completions.create({ ...ask, response_format, temperature, seed });
        expect([choices[0]!.finish_reason, valid(choices[0]!.message.content!)]).toEqual(['stop', true]);
      }
    expect(valid((await ollama.generate({ model: 'nano', prompt: 'lights on', format: schema })).response!)).toBe(true);
    const any = await openai.chat.completions.create({ ...ask, response_format: { type: 'json_object' } });
    expect(JSON.parse(any.choices[0]!.message.content!)).toEqual({ name: 'set_temperature', parameters: wanted });
  });

  it('can be a grammar', async () => {
    const grammar = 'root ::= "the answer is " ("yes" | "no")';
    const { choices } = await openai.chat.completions.create({ ...ask, grammar } as typeof ask);
    expect(choices[0]!.message.content).toMatch(/^the answer is (yes|no)$/);
  });

  it('is refused before any work where it cannot be kept to, by the path of its keyword', async () => {
    const refused = { type: 'object', properties: { size: { type: 'string', pattern: '^a' } } };
    const error = await openai.chat.completions
      .create({ ...ask, stream: true, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: refused } } })
      .then(() => undefined)
      .catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ status: 400, message: expect.stringContaining('schema at properties.size.pattern') });
    await expect(ollama.generate({ model: 'nano', prompt: 'x', format: refused })).rejects.toMatchObject({ status_code: 400 });
  });
});
