// A local application: turns a command into a call of one of its functions, with OpenAI's own client. No network but this device.
import OpenAI from 'openai';

const client = new OpenAI({
  baseURL: `${process.env.MATFLEET_URL ?? 'http://127.0.0.1:7481'}/v1`,
  apiKey: process.env.MATFLEET_HTTP_TOKEN ?? 'unused',
});
const [model] = (await client.models.list()).data;
if (!model) throw new Error('the agent has no model yet');

const functions = {
  set_temperature: ({ zone, celsius }: { zone: string; celsius: number }) => `${zone} goes to ${celsius} °C`,
  lock_door: ({ door }: { door: string }) => `${door} is locked`,
};

const string = { type: 'string' };
const tool = (name: keyof typeof functions, properties: Record<string, object>): OpenAI.ChatCompletionTool => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties, required: Object.keys(properties), additionalProperties: false } },
});

const { data, response } = await client.chat.completions
  .create(
    {
      model: model.id,
      messages: [{ role: 'user', content: process.argv[2] ?? 'Freezer room to -22 please' }],
      tools: [
        tool('set_temperature', { zone: string, celsius: { type: 'integer', minimum: -40, maximum: 40 } }),
        tool('lock_door', { door: string }),
      ],
    },
    // What the device cannot do in two seconds it refuses at once.
    { timeout: 2_000, maxRetries: 0 },
  )
  .withResponse();

const { message } = data.choices[0]!;
for (const call of message.tool_calls ?? [])
  if (call.type === 'function' && call.function.name in functions)
    // The arguments are valid under the schema above: the agent held the model to it.
    console.log(functions[call.function.name as keyof typeof functions](JSON.parse(call.function.arguments)));
if (message.content) console.log(message.content);

const told = (name: string): string | null => response.headers.get(`x-matfleet-${name}`);
console.log(`(${told('device')}, slice ${told('slice')}, first token after ${told('ttft-ms')} ms)`);
