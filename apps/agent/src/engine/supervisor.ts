import type { EngineSpec, EngineStatus, RunningEngine } from './engine-host.js';

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
  /** At agent start: runs the committed spec, trying again with backoff until it stands. Returns at once. */
  resume(spec: EngineSpec): void;
  /**
   * Makes a checked engine the current one, lets the old one finish its running answers up to a deadline and stops it. From now on a crash
   * restarts this spec with backoff.
   */
  promote(engine: RunningEngine): Promise<void>;
  /** Runs nothing from now on. */
  clear(): Promise<void>;
  stats(): SupervisorStats;
  /** Called when the current spec crashes too often (see `crashLooping`); the caller may revert to an earlier slice. */
  onCrashLoop(callback: (spec: EngineSpec, reason: string) => void): void;
  /** Called whenever the engine came up, went down or was swapped. */
  onChange(callback: (stats: SupervisorStats) => void): void;
  stop(): Promise<void>;
}
