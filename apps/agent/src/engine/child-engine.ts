import type { ChildProcess } from 'node:child_process';
import {
  EngineError,
  type EngineEvent,
  type EngineFinished,
  type EngineRequest,
  type EngineSpec,
  type EngineStatus,
  type RunningEngine,
  type SliceChange,
} from './engine-host.js';
import { residentBytes, type MemoryLimit } from './memory-limit.js';
import type { EngineCounters, EngineTerms, FromEngine, Loaded, ToEngine } from './messages.js';

/** Tokens that the engine may run ahead of its reader. */
const WINDOW_TOKENS = 32;
const ACKNOWLEDGE_EVERY_TOKENS = 8;
const RSS_EVERY_MS = 1_000;
const STOP_TIMEOUT_MS = 3_000;
const STDERR_BYTES = 4_096;

interface PendingAnswer {
  readonly onEvent: (event: EngineEvent) => void | Promise<void>;
  readonly resolve: (result: EngineFinished) => void;
  readonly reject: (error: unknown) => void;
  /** Events are handed over one after the other, each after the one before it was taken. */
  delivered: Promise<void>;
  unacknowledged: number;
  /** Tokens received and not yet taken; while there are some, the engine may be waiting for the reader. */
  untaken: number;
  lastProgressAt: number;
}

/** An engine process as seen from the agent, from its fork to its end. */
export class ChildEngine implements RunningEngine {
  #loaded: Loaded | undefined;
  #counters: EngineCounters = {
    pleRowsRead: 0,
    pleRowsCached: 0,
    pleCacheHits: 0,
    pleReads: 0,
    pleReadMs: 0,
    pleReadMsMax: 0,
    hotRowBytes: 0,
    kvBytes: 0,
    acceleratorBytes: 0,
  };
  #rssBytes = 0;
  #limit: MemoryLimit | undefined;
  #nextId = 1;
  readonly #answers = new Map<number, PendingAnswer>();
  readonly #checks = new Map<number, { readonly resolve: (promptTokens: number) => void; readonly reject: (error: EngineError) => void }>();
  #exitReason: string | undefined;
  #killedBecause: string | undefined;
  #stopping: Promise<void> | undefined;
  readonly #exitCallbacks: ((reason: string) => void)[] = [];
  readonly #ended: Promise<void>;
  #stderr = '';
  readonly #sampler: NodeJS.Timeout;
  #loadResult!: { resolve: (loaded: Loaded) => void; reject: (error: unknown) => void };
  /** Settles with the load. */
  readonly loaded: Promise<Loaded>;

  constructor(
    private readonly child: ChildProcess,
    readonly spec: EngineSpec,
    private readonly hangTimeoutMs: number,
  ) {
    this.loaded = new Promise((resolve, reject) => (this.#loadResult = { resolve, reject }));
    this.loaded.catch(() => {});
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES)));
    child.on('message', (message: FromEngine) => this.#receive(message));
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => child.pid === undefined && void this.#end(`could not be started: ${error.message}`).then(resolve));
      child.once('exit', (code, signal) => void this.#end(signal ? `ended by ${signal}` : `ended with code ${code}`).then(resolve));
    });
    this.#sampler = setInterval(() => void this.#sample(), RSS_EVERY_MS);
    this.#sampler.unref();
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  useLimit(limit: MemoryLimit): void {
    this.#limit = limit;
    if (this.#exitReason !== undefined) void limit.release();
  }

  load(terms: EngineTerms): Promise<Loaded> {
    this.#send({ kind: 'load', spec: this.spec, terms });
    return this.loaded;
  }

  async generate(
    request: EngineRequest,
    onEvent: (event: EngineEvent) => void | Promise<void>,
    signal?: AbortSignal,
    onRunning?: (change: (to: SliceChange) => void) => void,
  ): Promise<EngineFinished> {
    if (this.#exitReason !== undefined || this.#stopping)
      throw new EngineError('unavailable', `the engine of slice ${this.spec.sliceId} has stopped`);
    const id = this.#nextId++;
    const cancel = (): void => this.#send({ kind: 'cancel', id });
    try {
      return await new Promise<EngineFinished>((resolve, reject) => {
        this.#answers.set(id, { onEvent, resolve, reject, delivered: Promise.resolve(), unacknowledged: 0, untaken: 0, lastProgressAt: Date.now() });
        this.#send({ kind: 'generate', id, request, window: WINDOW_TOKENS });
        onRunning?.((to) => this.#send({ kind: 'change-slice', id, to }));
        if (signal?.aborted) cancel();
        else signal?.addEventListener('abort', cancel, { once: true });
      });
    } finally {
      signal?.removeEventListener('abort', cancel);
      this.#answers.delete(id);
    }
  }

  checkPrompt(request: EngineRequest): Promise<number> {
    if (this.#exitReason !== undefined || this.#stopping)
      return Promise.reject(new EngineError('unavailable', `the engine of slice ${this.spec.sliceId} has stopped`));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#checks.set(id, { resolve, reject });
      this.#send({ kind: 'check-prompt', id, request });
    });
  }

  async golden(promptIds: readonly number[], count: number, signal?: AbortSignal): Promise<{ tokenIds: number[]; stepsMs: number[] }> {
    const tokenIds: number[] = [];
    const stepsMs: number[] = [];
    const collect = (event: EngineEvent): void => {
      if (event.kind !== 'token') return;
      tokenIds.push(event.tokenId);
      stepsMs.push(event.stepMs);
    };
    await this.generate({ promptIds, maxTokens: count, reproducible: true }, collect, signal);
    return { tokenIds, stepsMs };
  }

  status(): EngineStatus {
    return {
      ready: this.#loaded !== undefined && this.#exitReason === undefined && !this.#stopping,
      ...this.#counters,
      rssBytes: this.#rssBytes,
      contextTokens: this.#loaded?.contextTokens ?? this.spec.contextTokens,
      runtimeBytes: this.#loaded?.runtimeBytes ?? 0,
      executionProviders: this.#loaded?.executionProviders ?? [],
      runtimeVersion: this.#loaded?.runtimeVersion ?? '',
      heldSlices: this.#loaded?.heldSlices ?? [],
      memoryLimitBy: this.#limit?.by ?? 'watchdog',
      memoryLimitBytes: this.#limit?.bytes() ?? 0,
    };
  }

  inFlight(): number {
    return this.#answers.size;
  }

  async idle(timeoutMs: number): Promise<boolean> {
    const until = Date.now() + timeoutMs;
    while (this.#answers.size > 0 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    return this.#answers.size === 0;
  }

  onExit(callback: (reason: string) => void): void {
    if (this.#exitReason !== undefined) callback(this.#exitReason);
    else this.#exitCallbacks.push(callback);
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  /** Ends the process at once; `reason` stands in what its answers and `onExit` are told. */
  kill(reason: string): void {
    this.#killedBecause ??= reason;
    this.child.kill('SIGKILL');
  }

  async #stop(): Promise<void> {
    if (this.#exitReason !== undefined) return;
    this.#killedBecause ??= 'it was asked to stop';
    this.#send({ kind: 'stop' });
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await this.#ended;
    clearTimeout(timer);
  }

  #send(message: ToEngine): void {
    // A closed channel is no error here: the exit that follows ends every answer.
    if (this.child.connected) this.child.send(message, () => {});
  }

  #receive(message: FromEngine): void {
    switch (message.kind) {
      case 'loaded':
        this.#loaded = message;
        this.#counters = message.counters;
        void this.#sample().then(() => this.#loadResult.resolve(message));
        return;
      case 'load-failed':
        this.#loadResult.reject(new EngineError('start-failed', message.message));
        return;
      case 'counters':
        this.#counters = message.counters;
        return;
      case 'started':
        return this.#deliver(message.id, { kind: 'started', promptTokens: message.promptTokens });
      case 'token':
        return this.#deliver(message.id, message);
      case 'fits':
        this.#checks.get(message.id)?.resolve(message.promptTokens);
        this.#checks.delete(message.id);
        return;
      case 'finished': {
        this.#counters = message.counters;
        const answer = this.#answers.get(message.id);
        void answer?.delivered.then(() => answer.resolve(message.result));
        return;
      }
      case 'failed': {
        const error = new EngineError(message.code, message.message);
        this.#checks.get(message.id)?.reject(error);
        this.#checks.delete(message.id);
        const answer = this.#answers.get(message.id);
        void answer?.delivered.then(() => answer.reject(error));
      }
    }
  }

  #deliver(id: number, event: EngineEvent): void {
    const answer = this.#answers.get(id);
    if (!answer) return;
    answer.lastProgressAt = Date.now();
    answer.untaken += 1;
    answer.delivered = answer.delivered
      .then(() => answer.onEvent(event))
      .then(
        () => {
          answer.untaken -= 1;
          answer.lastProgressAt = Date.now();
          if (event.kind !== 'token' || ++answer.unacknowledged < ACKNOWLEDGE_EVERY_TOKENS) return;
          this.#send({ kind: 'acknowledge', id, tokens: answer.unacknowledged });
          answer.unacknowledged = 0;
        },
        (error: unknown) => {
          // The reader is gone: nothing that follows is delivered.
          this.#answers.delete(id);
          this.#send({ kind: 'cancel', id });
          answer.reject(error);
        },
      );
  }

  async #sample(): Promise<void> {
    if (this.#exitReason !== undefined || this.pid === 0) return;
    this.#rssBytes = (await residentBytes(this.pid)) ?? 0;
    const now = Date.now();
    // Requests that wait behind the running one make no progress of their own.
    const [running] = this.#answers.values();
    if (running && running.untaken === 0 && now - running.lastProgressAt > this.hangTimeoutMs)
      this.kill(`it made no progress on an answer for ${this.hangTimeoutMs} ms`);
    if (this.#answers.size > 1) for (const answer of [...this.#answers.values()].slice(1)) answer.lastProgressAt = now;
  }

  async #end(how: string): Promise<void> {
    if (this.#exitReason !== undefined) return;
    clearInterval(this.#sampler);
    const limit = this.#limit;
    const overLimit = (await limit?.exceeded().catch(() => false)) ?? false;
    const why = overLimit ? `it passed its memory limit of ${mib(limit!.bytes())} MiB (${limit!.by})` : this.#killedBecause;
    const tail = this.#stderr.trim().split('\n').slice(-3).join(' | ');
    const reason = `engine process ${this.pid} of slice ${this.spec.sliceId} ${how}${why ? `: ${why}` : tail ? `: ${tail}` : ''}`;
    this.#exitReason = reason;
    this.#rssBytes = 0;
    this.#loadResult.reject(new EngineError('start-failed', reason));
    for (const answer of this.#answers.values()) answer.reject(new EngineError('unavailable', reason));
    this.#answers.clear();
    for (const check of this.#checks.values()) check.reject(new EngineError('unavailable', reason));
    this.#checks.clear();
    for (const callback of this.#exitCallbacks.splice(0)) callback(reason);
    await limit?.release().catch(() => {});
  }
}

const mib = (bytes: number): number => Math.round(bytes / 2 ** 20);
