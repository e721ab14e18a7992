import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { nanoPackage, StandaloneAgent } from '@matfleet/harness';
import { Ollama } from 'ollama';

// Ollama's own client, unchanged, against a real agent that serves nano.
let agent: StandaloneAgent;
let client: Ollama;

const command = 'Freezer room to -22 please';
const expected = '{"name":"set_temperature","parameters":{"zone":"freezer room","celsius":-22}}';
const model = 'nano';
const messages = [{ role: 'user', content: command }];

beforeAll(async () => {
  agent = await StandaloneAgent.start({ model: await nanoPackage('int8'), modelName: 'nano', sliceId: 's-32', contextTokens: 128 });
  client = new Ollama({ host: agent.url });
}, 120_000);

afterAll(() => agent.stop());

describe("Ollama's client", () => {
  it('lists the active slice as a tag of the model, shows it, and reads the version', async () => {
    const { models } = await client.list();
    expect(models).toMatchObject([{ name: 'nano:s-32', details: { family: 'gemma3n', quantization_level: 'int8/64' } }]);
    expect(models[0]!.size).toBeGreaterThan(1_000_000);
    expect((await client.ps()).models).toMatchObject([{ name: 'nano:s-32' }]);
    const shown = await client.show({ model: 'nano:s-32' });
    expect(shown).toMatchObject({ model_info: { 'gemma3n.context_length': 128 }, capabilities: expect.arrayContaining(['completion']) });
    expect((await client.version()).version).toMatch(/^\d+\.\d+\.\d+$/);
    await expect(client.show({ model: 'llama3' })).rejects.toMatchObject({ status_code: 404, message: expect.stringContaining('"nano:s-32" is') });
  });

  it('chats, with counts and times in nanoseconds', async () => {
    const answer = await client.chat({ model, messages });
    expect(answer).toMatchObject({ model, message: { role: 'assistant', content: expected }, done: true, done_reason: 'stop' });
    expect(answer.prompt_eval_count).toBeGreaterThan(10);
    expect(answer.eval_count).toBeGreaterThan(10);
    // One token of nano takes between 0.05 and 50 ms on any machine that runs this.
    for (const ns of [answer.prompt_eval_duration, answer.eval_duration / answer.eval_count]) {
      expect(ns).toBeGreaterThan(50_000);
      expect(ns).toBeLessThan(50_000_000 * 20);
    }
    expect(answer.total_duration).toBeGreaterThanOrEqual(answer.prompt_eval_duration);
  });

  it('streams the same text as lines of JSON', async () => {
    let text = '';
    let last;
    for await (const part of await client.chat({ model, messages, stream: true })) {
      text += part.message.content;
      last = part;
    }
    expect(text).toBe(expected);
    expect(last).toMatchObject({ done: true, done_reason: 'stop', matfleet: { device: 'kiosk', slice: 's-32', precision: 'int8/64' } });
  });

  it('generates through the template and, raw, without it', async () => {
    expect((await client.generate({ model, prompt: command })).response).toBe(expected);
    const raw = await client.generate({ model, prompt: command, raw: true, options: { num_predict: 4 } });
    expect(raw.prompt_eval_count).toBeLessThan((await client.chat({ model, messages })).prompt_eval_count);
    expect(raw.response).not.toBe(expected.slice(0, raw.response!.length));
    expect(await client.generate({ model, prompt: '' })).toMatchObject({ done: true, done_reason: 'load' });
  });

  it('takes its options: stop, num_predict, seed; and log probabilities', async () => {
    const stopped = await client.generate({ model, prompt: command, options: { stop: ['"parameters'] } });
    expect(stopped.response).toBe('{"name":"set_temperature",');
    expect(await client.generate({ model, prompt: command, options: { num_predict: 2 } })).toMatchObject({ eval_count: 2, done_reason: 'length' });
    const hot = (seed: number) =>
      client.generate({ model, prompt: command, options: { temperature: 3, top_k: 0, seed, num_predict: 20 } }).then(({ response }) => response);
    expect(await hot(7)).toBe(await hot(7));
    const { logprobs } = await client.generate({ model, prompt: command, logprobs: true, top_logprobs: 2 });
    expect(logprobs!.map(({ token }) => token).join('')).toBe(expected);
    expect(logprobs![0]!.top_logprobs).toHaveLength(2);
  });

  it('is told what is wrong: a context that is too large, an option that is not granted, a prompt that does not fit', async () => {
    const refusal = (options: object) => client.generate({ model, prompt: command, options });
    await expect(refusal({ num_ctx: 4096 })).rejects.toMatchObject({ status_code: 400, message: expect.stringContaining('context of 128 tokens') });
    await expect(refusal({ repeat_penalty: 1.1 })).rejects.toMatchObject({
      status_code: 400,
      message: expect.stringContaining('options.repeat_penalty'),
    });
    await expect(client.chat({ model, messages: [{ role: 'user', content: 'lights '.repeat(300) }] })).rejects.toMatchObject({
      status_code: 400,
      message: expect.stringMatching(/the prompt has \d{3,} tokens; the context of 128/),
    });
    await expect(client.chat({ model, messages: [{ role: 'user', content: 'what is this?', images: ['aGk='] }] })).rejects.toMatchObject({
      message: expect.stringContaining('text only'),
    });
  });
});
