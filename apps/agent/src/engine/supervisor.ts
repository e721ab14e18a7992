import type { EngineHost, EngineSpec, EngineStatus, RunningEngine } from './engine-host.js';
import { afterExit, defaultRestartPolicy, type RestartPolicy } from './restart-policy.js';

export interface SupervisorStats {
  readonly spec: EngineSpec | undefined;
  readonly ready: boolean;
  /** 0 while no engine runs. */
  readonly enginePid: number;
  /** Restarts after a crash since the agent started. */
  readonly restarts: number;
  /** True while the engine died too often in a short time; it is still restarted, at the longest wait. */
  readonly crashLooping: boolean;
  readonly lastExit: string | undefined;
  /** Until the next restart attempt; 0 when none is due. */
  readonly restartInMs: number;
  readonly engine: EngineStatus | undefined;
}

/** Keeps one engine running. */
export interface Supervisor {
  current(): RunningEngine | undefined;
  /** Waits for an engine to be ready; undefined once `signal` aborts or nothing is to run. */
  ready(signal: AbortSignal): Promise<RunningEngine | undefined>;
  /** At agent start: runs the committed spec, trying again with backoff until it stands. Returns at once. */
  resume(spec: EngineSpec): void;
  /**
   * Makes a checked engine the current one, lets the old one finish its running answers up to a deadline and stops it. From now on a crash
   * restarts this spec with backoff.
   */
  promote(engine: RunningEngine): Promise<void>;
  /** Ends the engine and starts none until `promote` or `resume`; requests wait meanwhile. */
  suspend(): Promise<void>;
  /** Runs nothing from now on. */
  clear(): Promise<void>;
  stats(): SupervisorStats;
  /** Called whenever the current spec's engine ended by itself or did not start; the caller may go back to an earlier slice. */
  onCrash(callback: (spec: EngineSpec, reason: string) => void): void;
  /** Called whenever the engine came up, went down or was swapped. */
  onChange(callback: (stats: SupervisorStats) => void): void;
  stop(): Promise<void>;
}

export interface SupervisorOptions {
  readonly host: EngineHost;
  readonly policy?: RestartPolicy;
  /** How long a replaced engine may finish its answers. */
  readonly drainTimeoutMs?: number;
  readonly log?: (message: string) => void;
}

export function createSupervisor({ host, policy = defaultRestartPolicy, drainTimeoutMs = 30_000, log = () => {} }: SupervisorOptions): Supervisor {
  let spec: EngineSpec | undefined;
  let engine: RunningEngine | undefined;
  let upSince = 0;
  let exits = 0;
  let restarts = 0;
  /** The start that is due or under way follows a crash, and is no first one. */
  let crashed = false;
  let crashLooping = false;
  let lastExit: string | undefined;
  let restartAt = 0;
  let timer: NodeJS.Timeout | undefined;
  /** Ends the start that is under way. */
  let starting: AbortController | undefined;
  let stopped = false;
  const changed: (() => void)[] = [];
  const crashCallbacks: ((spec: EngineSpec, reason: string) => void)[] = [];

  const tell = (): void => [...changed].forEach((callback) => callback());

  function use(next: RunningEngine): void {
    engine = next;
    spec = next.spec;
    upSince = Date.now();
    next.onExit((reason) => {
      if (engine !== next) return;
      engine = undefined;
      crashed = true;
      retry(next.spec, Date.now() - upSince, reason);
    });
    tell();
  }

  function retry(failed: EngineSpec, ranMs: number, reason: string): void {
    if (stopped) return;
    const decision = afterExit(policy, exits, ranMs, Math.random());
    ({ exits, crashLooping } = decision);
    lastExit = reason;
    restartAt = Date.now() + decision.delayMs;
    log(`${reason}; starting it again in ${decision.delayMs} ms (exit ${exits} in a row)`);
    timer = setTimeout(() => void restart(failed), decision.delayMs);
    tell();
    for (const callback of crashCallbacks) callback(failed, reason);
  }

  async function restart(wanted: EngineSpec): Promise<void> {
    restartAt = 0;
    const attempt = (starting = new AbortController());
    try {
      const next = await host.start(wanted, attempt.signal);
      if (starting !== attempt) return await next.stop();
      starting = undefined;
      if (crashed) restarts += 1;
      crashed = false;
      use(next);
    } catch (error) {
      if (starting !== attempt) return;
      starting = undefined;
      retry(wanted, 0, error instanceof Error ? error.message : String(error));
    }
  }

  /** Gives up whatever start is due or under way. */
  function abandonStart(): void {
    clearTimeout(timer);
    restartAt = 0;
    crashed = false;
    const attempt = starting;
    starting = undefined;
    attempt?.abort();
  }

  async function retire(old: RunningEngine | undefined, timeoutMs: number): Promise<void> {
    if (!old) return;
    await old.idle(timeoutMs);
    await old.stop();
  }

  const supervisor: Supervisor = {
    current: () => engine,

    ready: (signal) =>
      new Promise((resolve) => {
        const check = (): void => {
          if (!engine && spec && !signal.aborted && !stopped) return;
          signal.removeEventListener('abort', check);
          const at = changed.indexOf(check);
          if (at >= 0) changed.splice(at, 1);
          resolve(engine);
        };
        changed.push(check);
        signal.addEventListener('abort', check, { once: true });
        check();
      }),

    resume(wanted) {
      if (stopped) return;
      abandonStart();
      spec = wanted;
      exits = 0;
      crashLooping = false;
      const old = engine;
      engine = undefined;
      void retire(old, drainTimeoutMs);
      void restart(wanted);
    },

    async promote(next) {
      abandonStart();
      exits = 0;
      crashLooping = false;
      const old = engine;
      use(next);
      if (old !== next) await retire(old, drainTimeoutMs);
    },

    async suspend() {
      abandonStart();
      const old = engine;
      engine = undefined;
      tell();
      await retire(old, drainTimeoutMs);
    },

    async clear() {
      abandonStart();
      const old = engine;
      engine = undefined;
      spec = undefined;
      tell();
      await retire(old, drainTimeoutMs);
    },

    stats: () => ({
      spec,
      ready: engine?.status().ready ?? false,
      enginePid: engine?.pid ?? 0,
      restarts,
      crashLooping,
      lastExit,
      restartInMs: restartAt === 0 ? 0 : Math.max(0, restartAt - Date.now()),
      engine: engine?.status(),
    }),

    onCrash: (callback) => void crashCallbacks.push(callback),
    onChange: (callback) => void changed.push(() => callback(supervisor.stats())),

    async stop() {
      stopped = true;
      abandonStart();
      const old = engine;
      engine = undefined;
      tell();
      await old?.stop();
    },
  };
  return supervisor;
}
