// What the agent's local APIs cost over the engine alone. See README.md.
import { request as httpRequest } from 'node:http';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { StandaloneAgent, nanoPackage } from '@matfleet/harness';
import { exactDraftTokens, openEngine, threadPolicy } from '@matfleet/inference';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { CONTEXT_TOKENS, NANO, readExamples } from './support/nano-model.mjs';
import { whole } from './support/options.mjs';
import { median } from './support/statistics.mjs';

const SLICE = 's-512';

export const usage = `[options]
  --limit N  about N commands, by default 100
  --write    replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({ args, options: { limit: { type: 'string', default: '100' }, write: { type: 'boolean', default: false } } });
  const { examples } = await readExamples(NANO, 'heldout', whole('--limit', values.limit));
  const commands = examples.map(({ text }) => text);
  const model = await nanoPackage('int8');
  const manifest = JSON.parse(await readFile(join(model.dir, 'manifest.json'), 'utf8'));
  const policy = threadPolicy('shared', manifest.config.hiddenSize, availableParallelism());
  const engine = await openEngine({ manifest, storeDir: model.dir, sliceId: SLICE, contextTokens: CONTEXT_TOKENS, ...policy });
  const agent = await StandaloneAgent.start({ model, modelName: 'nano', sliceId: SLICE, contextTokens: CONTEXT_TOKENS });
  try {
    const ways = {
      'the engine alone, in this process': (text) => alone(engine, text, exactDraftTokens(manifest)),
      'gRPC over the Unix socket': (text) => grpc(agent, text),
      'OpenAI: /v1/chat/completions, streamed': (text) =>
        streamed(agent.url, '/v1/chat/completions', { messages: [{ role: 'user', content: text }], stream: true }),
      'Ollama: /api/chat, streamed': (text) => streamed(agent.url, '/api/chat', { messages: [{ role: 'user', content: text }] }),
    };
    const samples = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
    // The ways take turns, so that a noisy moment falls on all of them; each with another command, since the agent's engine still knows the one before.
    const WARM_UP = 10;
    for (let step = -WARM_UP; step < commands.length; step++)
      for (const [way, [name, ask]] of Object.entries(ways).entries()) {
        const index = (step + WARM_UP + way * Math.floor(commands.length / 4)) % commands.length;
        const sample = await ask(commands[index]);
        if (step >= 0) samples[name][index] = sample;
      }
    const [bare] = Object.values(samples);
    const rows = Object.entries(samples).map(([name, list]) => [
      name,
      ...['ttftMs', 'perTokenMs'].flatMap((key) => [
        median(list.map((sample) => sample[key])).toFixed(2),
        // Of the same command, each way.
        list === bare ? '' : median(list.map((sample, index) => sample[key] - bare[index][key])).toFixed(2),
      ]),
    ]);
    const waits = [];
    for (let seed = 0; seed < 20; seed++) waits.push(await waitAfterCancel(agent.url, seed));
    const text = [
      '# The local APIs over the engine alone',
      '',
      `${today()} · \`npm run bench -- local-api --write\` · ${machine()} · nano, ${SLICE}, int8, ${commands.length} commands`,
      '',
      table(
        [
          ['way', 'left'],
          ['first token ms', 'right'],
          ['more than alone', 'right'],
          ['ms a token', 'right'],
          ['more than alone', 'right'],
        ],
        rows,
      ),
      '',
      `A caller that goes away in mid-answer: the next one waits ${median(waits).toFixed(1)} ms for its turn, ${Math.max(...waits).toFixed(1)} ms at the longest of ${waits.length}.`,
    ].join('\n');
    console.log(text);
    if (values.write) await writeTable('local-api', text);
  } finally {
    await agent.stop();
    await engine.close();
  }
}

const timed = (from, first, last, tokens) => ({ ttftMs: first - from, perTokenMs: tokens > 1 ? (last - first) / (tokens - 1) : 0 });

async function alone(engine, text, draftTokens) {
  const from = performance.now();
  let [first, last, tokens] = [0, 0, 0];
  for await (const _ of engine.generate(engine.tokenize([{ role: 'user', text }]), { draftTokens })) {
    last = performance.now();
    first ||= last;
    tokens += 1;
  }
  return timed(from, first, last, tokens);
}

async function grpc(agent, prompt) {
  const from = performance.now();
  let [first, last, tokens] = [0, 0, 0];
  await agent.app.ask({
    prompt,
    onText: () => {
      last = performance.now();
      first ||= last;
      tokens += 1;
    },
  });
  return timed(from, first, last, tokens);
}

/** Counts the parts that carry text, each one token of nano's. */
function streamed(url, path, body) {
  return new Promise((resolve, reject) => {
    const from = performance.now();
    let [first, last, tokens, rest] = [0, 0, 0, ''];
    const request = httpRequest(url + path, { method: 'POST' }, (response) => {
      response.setEncoding('utf8').on('data', (data) => {
        const lines = (rest + data).split('\n');
        rest = lines.pop();
        const parts = lines.filter((line) => /"content":"[^"]/.test(line)).length;
        if (parts === 0) return;
        last = performance.now();
        first ||= last;
        tokens += parts;
      });
      response.on('end', () =>
        response.statusCode === 200 ? resolve(timed(from, first, last, tokens)) : reject(new Error(`HTTP ${response.statusCode}`)),
      );
    });
    request.on('error', reject);
    request.end(JSON.stringify({ model: 'nano', ...body }));
  });
}

/** Leaves a long answer at its fifth part and asks again at once; how long that waited for its turn. */
async function waitAfterCancel(url, seed) {
  const messages = [{ role: 'user', content: 'Freezer room to -22 please' }];
  const body = { model: 'nano', messages, stream: true, temperature: 2, top_p: 1, seed };
  await new Promise((resolve, reject) => {
    let parts = 0;
    const request = httpRequest(`${url}/v1/chat/completions`, { method: 'POST' }, (response) => {
      response.on('data', () => ++parts === 5 && request.destroy());
      response.on('close', resolve).on('error', () => {});
    });
    request.on('error', (error) => (parts >= 5 ? resolve() : reject(error)));
    request.end(JSON.stringify(body));
  });
  const next = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'nano', messages, max_tokens: 1 }) });
  return (await next.json()).matfleet.queue_ms;
}
