import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ChildEngine } from './child-engine.js';
import { EngineError, type EngineHost, type EngineSpec, type RunningEngine } from './engine-host.js';
import { limitMemory, loadingLimitBytes, servingLimitBytes, type MemoryLimit } from './memory-limit.js';
import type { EngineTerms } from './messages.js';

export interface EngineHostOptions {
  /** The operator's grant; 0 when not set, then `availableMemoryBytes` at the start bounds the engine. */
  readonly modelMemoryBytes: number;
  readonly availableMemoryBytes: () => number;
  /** Threads of one operator; the library's own choice when absent. */
  readonly threads?: number;
  /** `shared` when absent. */
  readonly box?: EngineTerms['box'];
  /** `cpu` when absent. */
  readonly provider?: EngineTerms['provider'];
  /** Of an accelerator's memory, at most. */
  readonly acceleratorMemoryBytes?: number;
  readonly startTimeoutMs?: number;
  /** An answer without a token for this long means that the process hangs. */
  readonly hangTimeoutMs?: number;
  readonly memoryLimit?: 'cgroup' | 'watchdog';
  /** Told, with the reason, when no control group holds the engine. */
  readonly onWatchdog?: (reason: string) => void;
  /** The compiled `engine-process.js`. */
  readonly entry?: URL;
}

/** Runs each engine in a child process of its own, bounded in memory. */
export function createEngineHost(options: EngineHostOptions): EngineHost {
  const startTimeoutMs = options.startTimeoutMs ?? 180_000;
  const entry = fileURLToPath(options.entry ?? new URL('./engine-process.js', import.meta.url));
  let told = false;

  async function start(spec: EngineSpec, signal?: AbortSignal): Promise<RunningEngine> {
    if (signal?.aborted) throw new EngineError('start-failed', `the start of slice ${spec.sliceId} was cancelled`);
    const child = fork(entry, [], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], env: engineEnvironment(), execArgv: [] });
    const engine = new ChildEngine(child, spec, options.hangTimeoutMs ?? 120_000);
    const cancel = (): void => engine.kill('its start was cancelled');
    const timer = setTimeout(() => engine.kill(`it was not ready within ${startTimeoutMs} ms`), startTimeoutMs);
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const available = options.availableMemoryBytes();
      const loadingBytes = options.modelMemoryBytes > 0 ? loadingLimitBytes(options.modelMemoryBytes) : available;
      if (engine.pid > 0) {
        const limit = await limitMemory(engine.pid, loadingBytes, {
          kill: () => engine.kill('memory limit'),
          ...(options.memoryLimit && { prefer: options.memoryLimit }),
          onFallback: (reason) => {
            if (!told) options.onWatchdog?.(reason);
            told = true;
          },
        });
        engine.useLimit(limit);
        const { runtimeBytes } = await engine.load({
          box: options.box ?? 'shared',
          ...(options.threads !== undefined && { threads: options.threads }),
          provider: options.provider ?? 'cpu',
          ...(options.acceleratorMemoryBytes !== undefined && { acceleratorMemoryBytes: options.acceleratorMemoryBytes }),
        });
        if (options.modelMemoryBytes > 0) await tighten(limit, servingLimitBytes(options.modelMemoryBytes, runtimeBytes));
      } else await engine.loaded;
      return engine;
    } catch (cause) {
      await engine.stop();
      const message = cause instanceof Error ? cause.message : String(cause);
      throw new EngineError('start-failed', `slice ${spec.sliceId} of ${spec.modelName} did not start: ${message}`, { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    }
  }

  return { start };
}

/** The kernel refuses a bound below what the process holds and cannot give back. */
async function tighten(limit: MemoryLimit, bytes: number): Promise<void> {
  try {
    await limit.setBytes(bytes);
  } catch (cause) {
    throw new Error(`the loaded engine holds more than its limit of ${Math.round(bytes / 2 ** 20)} MiB (${limit.by})`, { cause });
  }
}

/** The agent's own variables may hold a join token. */
const engineEnvironment = (): NodeJS.ProcessEnv => Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MATFLEET_')));
