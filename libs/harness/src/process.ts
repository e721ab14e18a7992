import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { waitFor } from './wait.js';

/** One real process of the product, with its output in a log file. */
export class ManagedProcess {
  private constructor(
    readonly name: string,
    readonly child: ChildProcess,
    readonly logFile: string,
  ) {}

  static start(
    name: string,
    script: string,
    args: readonly string[],
    options: {
      env?: NodeJS.ProcessEnv;
      logFile: string;
      cwd?: string;
      /** A command that runs it, with its first arguments: `ip netns exec <name>`. */
      within?: readonly string[];
      /** What `script` is written for; this Node.js when absent. */
      interpreter?: string;
    },
  ): ManagedProcess {
    const log = openSync(options.logFile, 'a');
    try {
      const [command, ...rest] = [...(options.within ?? []), options.interpreter ?? process.execPath, script, ...args];
      const child = spawn(command!, rest, {
        env: { ...process.env, ...options.env },
        cwd: options.cwd,
        stdio: ['ignore', log, log],
      });
      child.on('error', () => undefined); // shows as an exit
      return new ManagedProcess(name, child, options.logFile);
    } finally {
      closeSync(log);
    }
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start`);
    return this.child.pid;
  }

  get exited(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** The last lines of its log, for error messages. */
  logTail(lines = 15): string {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** Waits for the JSON document that the process writes once it serves. */
  async ready<T>(file: string, timeoutMs = 60_000): Promise<T> {
    return waitFor(
      `${this.name} to be ready`,
      async () => {
        if (this.exited) throw new Error(`${this.name} exited with ${this.child.exitCode ?? this.child.signalCode}:\n${this.logTail()}`);
        const text = await readFile(file, 'utf8').catch(() => undefined);
        return text === undefined ? undefined : (JSON.parse(text) as T);
      },
      { timeoutMs },
    ).catch((error: unknown) => {
      throw new Error(`${this.name} is not ready after ${timeoutMs} ms; its log ends:\n${this.logTail()}`, { cause: error });
    });
  }

  /** Kills at once, as a power cut would, and waits until it is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (!this.exited) this.child.kill(signal);
    await waitFor(`${this.name} to be gone`, () => this.exited, { timeoutMs: 20_000, everyMs: 20 });
  }

  /** Asks it to stop; kills it when it has not within `graceMs`, and says so. */
  async stop(graceMs = 15_000): Promise<{ clean: boolean }> {
    if (this.exited) return { clean: true };
    this.child.kill('SIGTERM');
    const clean = await waitFor(`${this.name} to stop`, () => this.exited, { timeoutMs: graceMs, everyMs: 20 }).catch(() => false as const);
    if (!clean) await this.kill();
    return { clean };
  }
}

export const removeFile = (file: string): Promise<void> => rm(file, { force: true });
