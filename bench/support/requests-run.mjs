// Many short answers in a process of its own: what it holds after every so many. Takes one JSON document as its argument, prints one on stdout.
import { openEngine, readManifest } from '@matfleet/inference';
import { memoryOf } from './memory.mjs';

const { dir, sliceId, texts, requests, every, contextTokens, draftTokens } = JSON.parse(process.argv[2]);
const manifest = await readManifest(dir);
const engine = await openEngine({ manifest, storeDir: dir, sliceId, contextTokens });
const points = [];
let tokens = 0;
let cached = 0;
const started = performance.now();
for (let request = 1; request <= requests; request++) {
  const messages = [{ role: 'user', text: texts[request % texts.length] }];
  // Every third one is the second turn of a conversation, every seventh is given up in the middle.
  const answer = async (options) => {
    const events = engine.generate(engine.tokenize(messages), { maxTokens: 48, draftTokens, ...options });
    for (;;) {
      const step = await events.next();
      if (step.done) return step.value;
    }
  };
  let result = await answer({});
  if (request % 3 === 0) {
    messages.push({ role: 'model', text: result.text }, { role: 'user', text: texts[(request * 7) % texts.length] });
    result = await answer({});
  }
  if (request % 7 === 0) {
    const events = engine.generate(engine.tokenize(messages), { sampling: { seed: request } });
    for (let i = 0; i < 4; i++) await events.next();
    await events.return();
  }
  tokens += result.outputTokens;
  cached += result.cachedPromptTokens;
  if (request % every === 0) {
    globalThis.gc();
    points.push({ requests: request, heapBytes: process.memoryUsage().heapUsed, ...(await memoryOf()) });
  }
}
const seconds = (performance.now() - started) / 1000;
const stats = engine.stats();
await engine.close();
process.stdout.write(JSON.stringify({ points, tokens, cached, seconds, stats }));
