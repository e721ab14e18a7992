import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { nanoPackage, StandaloneAgent } from '@matfleet/harness';
import OpenAI, { APIError, RateLimitError } from 'openai';

// OpenAI's own client, unchanged, against a real agent that serves nano.
let agent: StandaloneAgent;
let client: OpenAI;

const command = 'Freezer room to -22 please';
const expected = '{"name":"set_temperature","parameters":{"zone":"freezer room","celsius":-22}}';
const ask = { model: 'nano', messages: [{ role: 'user' as const, content: command }] };
/** Nothing that a model can end early. */
const long = { ...ask, grammar: 'root ::= [a-z]{80}', stream: true as const };

beforeAll(async () => {
  agent = await StandaloneAgent.start({
    model: await nanoPackage('int8'),
    modelName: 'nano',
    sliceId: 's-512',
    contextTokens: 128,
    args: ['--queue-limit', '2'],
  });
  client = new OpenAI({ baseURL: `${agent.url}/v1`, apiKey: 'unused', maxRetries: 0 });
}, 120_000);

afterAll(() => agent.stop());

const errorOf = async (work: Promise<unknown>): Promise<APIError> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof APIError) return error;
    throw error;
  }
  throw new Error('there was an answer');
};

describe("OpenAI's client", () => {
  it('lists the one model that is active, with its slice', async () => {
    const { data } = await client.models.list();
    expect(data).toEqual([
      expect.objectContaining({ id: 'nano', object: 'model', matfleet: expect.objectContaining({ slice: 's-512', context_tokens: 128 }) }),
    ]);
    expect((await client.models.retrieve('nano:s-512')).id).toBe('nano');
    expect(await errorOf(client.models.retrieve('gpt-4o'))).toMatchObject({ status: 404, code: 'model_not_found' });
  });

  it('gets a chat answer with its usage, and headers that tell who gave it and how fast', async () => {
    const { data, response } = await client.chat.completions.create(ask).withResponse();
    expect(data).toMatchObject({ object: 'chat.completion', model: 'nano' });
    expect(data.choices).toMatchObject([{ index: 0, message: { role: 'assistant', content: expected }, finish_reason: 'stop' }]);
    const { prompt_tokens, completion_tokens, total_tokens } = data.usage!;
    expect(prompt_tokens).toBeGreaterThan(10);
    expect(completion_tokens).toBeGreaterThan(10);
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
    const header = (name: string): string | null => response.headers.get(`x-matfleet-${name}`);
    expect([header('device'), header('slice'), header('precision'), header('model')]).toEqual(['kiosk', 's-512', 'int8/64', 'nano']);
    expect(Number(header('ttft-ms'))).toBeGreaterThan(0);
    expect(Number(header('inter-token-ms'))).toBeGreaterThan(0);
  });

  it('streams the same text token by token, then the finish, the usage and the provenance', async () => {
    const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks[0]!.choices[0]!.delta).toMatchObject({ role: 'assistant', content: '' });
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(expected);
    const last = chunks.at(-2)!;
    expect(last.choices[0]!.finish_reason).toBe('stop');
    expect(last).toMatchObject({ matfleet: { device: 'kiosk', slice: 's-512', precision: 'int8/64' } });
    expect(chunks.at(-1)!).toMatchObject({ choices: [], usage: { completion_tokens: chunks.length - 3 } });
  });

  it('stops before a stop text, at a limit of tokens, and samples the same answer from the same seed', async () => {
    const stopped = await client.chat.completions.create({ ...ask, stop: ',"celsius' });
    expect(stopped.choices[0]).toMatchObject({ message: { content: expected.split(',"celsius')[0] }, finish_reason: 'stop' });
    const short = await client.chat.completions.create({ ...ask, max_completion_tokens: 3 });
    expect(short.choices[0]!.finish_reason).toBe('length');
    expect(short.usage!.completion_tokens).toBe(3);
    const hot = (seed: number) =>
      client.chat.completions.create({ ...ask, temperature: 2, top_p: 1, seed, max_tokens: 20 }).then(({ choices }) => choices[0]!.message.content);
    const [first, again, other] = [await hot(1), await hot(1), await hot(2)];
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  it('gets log probabilities: the greedy token is the best one, and they sum to at most 1', async () => {
    const { choices } = await client.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 5 });
    const tokens = choices[0]!.logprobs!.content!;
    expect(tokens.map(({ token }) => token).join('')).toBe(expected);
    for (const { token, logprob, top_logprobs } of tokens) {
      expect(top_logprobs[0]).toMatchObject({ token, logprob });
      expect(top_logprobs.reduce((sum, one) => sum + Math.exp(one.logprob), 0)).toBeLessThanOrEqual(1.0001);
    }
  });

  it('continues a text without the chat template', async () => {
    const { choices, usage } = await client.completions.create({ model: 'nano', prompt: 'the freezer', max_tokens: 8, logprobs: 2 });
    expect(usage!.completion_tokens).toBeLessThanOrEqual(8);
    expect(choices[0]!.logprobs!.tokens!.length).toBe(usage!.completion_tokens);
    const stream = await client.completions.create({ model: 'nano', prompt: 'the freezer', max_tokens: 8, stream: true });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]!.text;
    expect(text).toBe(choices[0]!.text);
  });

  it('is told in OpenAI’s words what is wrong: a prompt too long, a wish that is not granted, turns out of order', async () => {
    const long = await errorOf(client.chat.completions.create({ ...ask, messages: [{ role: 'user', content: 'lights '.repeat(300) }] }));
    expect(long).toMatchObject({ status: 400, code: 'context_length_exceeded', type: 'invalid_request_error' });
    expect(long.message).toMatch(/the prompt has \d{3,} tokens; the context of 128/);
    expect(await errorOf(client.chat.completions.create({ ...ask, n: 2 }))).toMatchObject({ status: 400, param: 'n' });
    expect(await errorOf(client.chat.completions.create({ ...ask, frequency_penalty: 1 }))).toMatchObject({
      status: 400,
      param: 'frequency_penalty',
    });
    expect(await errorOf(client.chat.completions.create({ ...ask, speed: 'high' } as never))).toMatchObject({
      code: 'unknown_parameter',
      param: 'speed',
    });
    const image = { type: 'image_url' as const, image_url: { url: 'data:,' } };
    const picture = await errorOf(client.chat.completions.create({ ...ask, messages: [{ role: 'user', content: [image] }] }));
    expect(picture.message).toContain('this agent answers text only');
    const turns = [...ask.messages, ...ask.messages];
    expect(await errorOf(client.chat.completions.create({ ...ask, messages: turns }))).toMatchObject({ status: 400 });
  });

  it('is refused with 429 and a time to come back when the queue is full, and at once when its own timeout cannot be met', async () => {
    const { enginePid } = await agent.app.status();
    process.kill(enginePid, 'SIGSTOP');
    const answers = Array.from({ length: 3 }, () => client.chat.completions.create(ask));
    while ((await agent.app.status()).queueLength < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    const full = await errorOf(client.chat.completions.create(ask));
    expect(full).toBeInstanceOf(RateLimitError);
    expect(full).toMatchObject({ code: 'queue_full' });
    expect(Number(full.headers!.get('retry-after'))).toBeGreaterThanOrEqual(1);
    const late = await errorOf(client.chat.completions.create(ask, { headers: { 'x-matfleet-timeout-ms': '1' } }));
    expect(late).toMatchObject({ status: 503, code: 'deadline_unattainable' });
    expect(late.message).toMatch(/expected in \d+ ms/);
    process.kill(enginePid, 'SIGCONT');
    for (const { choices } of await Promise.all(answers)) expect(choices[0]!.message.content).toBe(expected);
  });

  it('lets an interactive request pass those that wait in the background', async () => {
    const { enginePid } = await agent.app.status();
    const running = await client.chat.completions.create(long);
    process.kill(enginePid, 'SIGSTOP');
    const order: string[] = [];
    const send = (priority: string) =>
      client.chat.completions.create(ask, { headers: { 'x-matfleet-priority': priority } }).then(() => order.push(priority));
    const waiting = [send('background')];
    while ((await agent.app.status()).queueLength < 1) await new Promise((resolve) => setTimeout(resolve, 10));
    waiting.push(send('interactive'));
    while ((await agent.app.status()).queueLength < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    process.kill(enginePid, 'SIGCONT');
    for await (const _ of running);
    await Promise.all(waiting);
    expect(order).toEqual(['interactive', 'background']);
    expect(await errorOf(client.chat.completions.create(ask, { headers: { 'x-matfleet-priority': 'urgent' } }))).toMatchObject({ status: 400 });
  });

  it('stops the engine by going away in the middle of an answer', async () => {
    const stream = await client.chat.completions.create(long);
    let seen = 0;
    for await (const _ of stream) if (++seen === 3) break;
    const from = Date.now();
    const next = await client.chat.completions.create({ ...ask, max_tokens: 1 });
    expect(next.choices).toHaveLength(1);
    expect(Date.now() - from).toBeLessThan(2_000);
    expect((await agent.app.status()).queueLength).toBe(0);
  });

  it('hears a whole answer although the engine was killed in the middle, and gets answers again', async () => {
    const textOf = async (onFirst: () => void): Promise<string> => {
      let [seen, text] = [0, ''];
      for await (const { choices } of await client.chat.completions.create(long)) {
        // The first part comes before the first token.
        if (++seen === 1) onFirst();
        text += choices[0]?.delta.content ?? '';
      }
      return text;
    };
    const undisturbed = await textOf(() => {});
    const { enginePid } = await agent.app.status();
    expect(await textOf(() => process.kill(enginePid, 'SIGKILL'))).toBe(undisturbed);
    expect((await agent.app.status()).enginePid).not.toBe(enginePid);
    const { choices } = await client.chat.completions.create(ask);
    expect(choices[0]!.message.content).toBe(expected);
  });
});
