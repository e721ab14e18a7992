// The engine process: the only place of the agent that imports the inference library, since running a model blocks its thread and may take the
// process with it. Speaks `messages.ts` over the IPC channel of its parent and ends when that channel closes.
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import { exactDraftTokens, isPrepared, openEngine, runtime, threadPolicy, type Engine, type TokenLogprobs } from '@matfleet/inference';
import { footprint, Manifest, mappedBytes, sliceById, slicesWithin } from '@matfleet/model';
import type { EngineEvent, EngineFinished, EngineRequest, EngineSpec, SliceChange } from './engine-host.js';
import type { EngineTerms, FromEngine, ToEngine } from './messages.js';

const COUNTERS_EVERY_MS = 1_000;
const OPEN_SLICES = 2;

interface Answer {
  readonly abort: AbortController;
  /** Tokens that may still be sent before the agent acknowledges some. */
  credit: number;
  change: SliceChange | undefined;
  wake: () => void;
}

const answers = new Map<number, Answer>();
let engine: Engine | undefined;
let draftTokens = 0;
/** The library serves one inference at a time; the next one starts when this settles. */
let last: Promise<void> = Promise.resolve();

process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => {}); // Ctrl-C reaches the whole group; the agent decides when its engine ends.
process.on('message', (message: ToEngine) => {
  switch (message.kind) {
    case 'load':
      void load(message.spec, message.terms);
      return;
    case 'generate': {
      const answer: Answer = { abort: new AbortController(), credit: message.window, change: undefined, wake: () => {} };
      answers.set(message.id, answer);
      last = last.then(() => generate(message, answer));
      return;
    }
    case 'check-prompt':
      try {
        send({ kind: 'fits', id: message.id, promptTokens: promptOf(message.request).length });
      } catch (error) {
        fail(message.id, error);
      }
      return;
    case 'acknowledge': {
      const answer = answers.get(message.id);
      if (answer) {
        answer.credit += message.tokens;
        answer.wake();
      }
      return;
    }
    case 'change-slice': {
      const answer = answers.get(message.id);
      if (answer) answer.change = message.to;
      return;
    }
    case 'cancel': {
      const answer = answers.get(message.id);
      answer?.abort.abort();
      answer?.wake();
      return;
    }
    case 'stop':
      for (const answer of answers.values()) {
        answer.abort.abort();
        answer.wake();
      }
      void last.then(() => engine?.close()).finally(() => process.exit(0));
  }
});

function send(message: FromEngine): void {
  if (process.connected) process.send?.(message);
}

async function load(spec: EngineSpec, { box, threads, provider, acceleratorMemoryBytes }: EngineTerms): Promise<void> {
  try {
    const before = process.memoryUsage.rss();
    const manifest = Manifest.parse(JSON.parse(await readFile(spec.manifestPath, 'utf8')));
    const slice = sliceById(manifest, spec.sliceId);
    // A session on an accelerator, or over weights that are not packed, takes their memory once more.
    const frugal = provider === 'cpu' && (mappedBytes(manifest, slice) === 0 || (await isPrepared(manifest, spec.storeDir, slice)));
    const heldSlices = frugal ? slicesWithin(manifest, slice).map(({ id }) => id) : [slice.id];
    const loaded = await openEngine({
      manifest,
      storeDir: spec.storeDir,
      sliceId: spec.sliceId,
      otherSlices: heldSlices,
      mostOpenSlices: spec.openSlices ?? OPEN_SLICES,
      contextTokens: spec.contextTokens,
      ...(spec.hotRowBytes !== undefined && { hotRowBytes: spec.hotRowBytes }),
      ...threadPolicy(box, manifest.config.hiddenSize, availableParallelism()),
      ...(threads !== undefined && { threads }),
      provider,
      ...(acceleratorMemoryBytes !== undefined && { acceleratorMemoryBytes }),
    });
    // One step, so that what the runtime allocates lazily is there when the memory is measured.
    for await (const _ of loaded.generate([manifest.config.bosTokenId], { maxTokens: 1 }));
    const { weightsBytes, headBytes } = footprint(manifest, slice, loaded.contextTokens);
    const counters = loaded.stats();
    const hostWeightsBytes = Math.max(0, weightsBytes + headBytes - counters.acceleratorBytes);
    engine = loaded;
    draftTokens = exactDraftTokens(manifest);
    send({
      kind: 'loaded',
      contextTokens: loaded.contextTokens,
      // Mapped weights need not be resident yet; the bare process is the least that the runtime takes.
      runtimeBytes: Math.max(before, process.memoryUsage.rss() - hostWeightsBytes),
      executionProviders: loaded.executionProviders,
      runtimeVersion: runtime.version,
      heldSlices,
      counters,
    });
    setInterval(() => send({ kind: 'counters', counters: loaded.stats() }), COUNTERS_EVERY_MS).unref();
  } catch (error) {
    send({ kind: 'load-failed', message: messageOf(error) });
  }
}

class PromptTooLong extends Error {}

/** The prompt's ids; throws PromptTooLong when the context has no room for them and one token of the answer. */
function promptOf(request: EngineRequest): readonly number[] {
  if (!engine) throw new Error('no slice is loaded');
  const { contextTokens } = engine;
  const ids = request.promptIds ?? (request.text === undefined ? engine.tokenize(request.messages ?? []) : engine.tokenizeText(request.text));
  const answered = request.answeredIds?.length ?? 0;
  if (ids.length + answered >= contextTokens)
    throw new PromptTooLong(
      `the prompt has ${ids.length} tokens${answered > 0 ? ` and the answer so far ${answered}` : ''}; the context of ${contextTokens} holds ${contextTokens - 1} of a prompt and one of the answer`,
    );
  return ids;
}

/** Text instead of ids: only this process has the vocabulary. */
function logprobOf(tokenId: number, { logprob, top }: TokenLogprobs): Extract<EngineEvent, { kind: 'token' }>['logprob'] {
  const bytes = (id: number): number[] => [...(engine?.bytesOf(id) ?? [])];
  return { tokenId, bytes: bytes(tokenId), logprob, top: top.map((one) => ({ ...one, bytes: bytes(one.tokenId) })) };
}

function fail(id: number, error: unknown): void {
  const code = error instanceof PromptTooLong ? 'prompt-too-long' : error instanceof RangeError ? 'invalid' : 'internal';
  send({ kind: 'failed', id, code, message: messageOf(error) });
}

async function generate({ id, request }: Extract<ToEngine, { kind: 'generate' }>, answer: Answer): Promise<void> {
  try {
    if (!engine) throw new Error('no slice is loaded');
    if (answer.abort.signal.aborted) {
      const none = { promptTokens: 0, cachedPromptTokens: 0, outputTokens: 0, ttftMs: 0, tokensPerSecond: 0, tail: '' };
      const result: EngineFinished = { reason: 'cancelled', ...none };
      return send({ kind: 'finished', id, result, counters: engine.stats() });
    }
    const promptIds = promptOf(request);
    if (request.format) engine.checkFormat(request.format);
    send({ kind: 'started', id, promptTokens: promptIds.length });
    let since = performance.now();
    const tokens = engine.generate(promptIds, {
      ...(request.maxTokens !== undefined && { maxTokens: request.maxTokens }),
      ...(request.answeredIds && { answered: request.answeredIds }),
      ...(request.sampling && { sampling: request.sampling }),
      ...(request.stop && { stop: request.stop }),
      ...(request.format && { format: request.format }),
      ...(request.topLogprobs !== undefined && { topLogprobs: request.topLogprobs }),
      ...(request.sliceId !== undefined && { sliceId: request.sliceId }),
      sliceFor: () => answer.change?.sliceId ?? request.sliceId ?? engine!.sliceId,
      get onSwitch() {
        return answer.change?.mode ?? 'keep';
      },
      ...(request.reproducible ? { reuse: 'off' } : { draftTokens }),
      signal: answer.abort.signal,
    });
    for (;;) {
      const step = await tokens.next();
      if (step.done) {
        const { reason, cachedPromptTokens, outputTokens, ttftMs, tokensPerSecond, tail } = step.value;
        const result: EngineFinished = { reason, promptTokens: promptIds.length, cachedPromptTokens, outputTokens, ttftMs, tokensPerSecond, tail };
        return send({ kind: 'finished', id, result, counters: engine.stats() });
      }
      const now = performance.now();
      const { tokenId, text, sliceId, logprobs } = step.value;
      send({ kind: 'token', id, tokenId, text, stepMs: now - since, sliceId, ...(logprobs && { logprob: logprobOf(tokenId, logprobs)! }) });
      since = now;
      answer.credit -= 1;
      // The runtime holds the thread while it computes: without this turn of the event loop, no cancel would be read before the end.
      await new Promise(setImmediate);
      if (answer.credit <= 0 && !answer.abort.signal.aborted) {
        const waitedFrom = performance.now();
        while (answer.credit <= 0 && !answer.abort.signal.aborted) await new Promise<void>((resolve) => (answer.wake = resolve));
        since += performance.now() - waitedFrom;
      }
    }
  } catch (error) {
    fail(id, error);
  } finally {
    answers.delete(id);
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
