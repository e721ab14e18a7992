import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { SimulatedFleet } from './simulation.js';
import { addCounts, type Counts } from './statistics.js';

/** The built program, seen from src/ and from dist/ alike. */
const PROCESS = fileURLToPath(new URL('../dist/spread-process.js', import.meta.url));
/** Devices that one process carries: a descriptor each, and a quarter of a megabyte. */
export const DEVICES_PER_PROCESS = 5_000;
const STOP_TIMEOUT_MS = 30_000;

/** What one process simulates; plain data, as it travels to it. Its script is read from its file there. */
export interface Share {
  readonly server: string;
  readonly joinToken: string;
  readonly first: number;
  readonly devices: number;
  readonly seed: number;
  readonly ramp: number;
  readonly reportsPerMinute: number;
  readonly modelMemoryBytes: readonly number[];
  readonly script: string | undefined;
  readonly history: string | undefined;
}

export type ToProcess = { readonly kind: 'share'; readonly share: Share } | { readonly kind: 'start' | 'play' | 'reset-acks' | 'stop' };
export type FromProcess =
  | { readonly kind: 'counts'; readonly counts: Counts }
  | { readonly kind: 'done'; readonly of: 'start' | 'play' | 'stop' }
  | { readonly kind: 'failed'; readonly message: string };

/** Equal shares of the devices and of the ramp; each history goes to a file of its own, `<history>.<n>`. */
export function sharesOf(whole: Share, processes: number): Share[] {
  const edges = Array.from({ length: processes + 1 }, (_, i) => Math.round((i * whole.devices) / processes));
  return Array.from({ length: processes }, (_, i) => ({
    ...whole,
    first: whole.first + edges[i]!,
    devices: edges[i + 1]! - edges[i]!,
    ramp: whole.ramp / processes,
    history: whole.history && `${whole.history}.${i + 1}`,
  }));
}

/** A fleet spread over processes, because one has neither descriptors nor memory for all its devices. */
export class SpreadSimulation implements SimulatedFleet {
  private readonly parts: Part[];

  constructor(shares: readonly Share[]) {
    this.parts = shares.map((share) => new Part(share));
  }

  start = (): Promise<void> => this.all('start');
  playScript = (): Promise<void> => this.all('play');

  counts(): Counts {
    return addCounts(this.parts.flatMap(({ counts }) => (counts ? [counts] : [])));
  }

  resetAcks(): void {
    for (const part of this.parts) part.send({ kind: 'reset-acks' });
  }

  async stop(): Promise<void> {
    await Promise.all(this.parts.map((part) => part.end()));
  }

  private async all(what: 'start' | 'play'): Promise<void> {
    await Promise.all(this.parts.map((part) => part.ask(what)));
  }
}

class Part {
  counts: Counts | undefined;
  private readonly child: ChildProcess;
  private readonly waiting = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();

  constructor(share: Share) {
    // A signal from the terminal goes to the whole group; only the parent decides when to stop.
    this.child = fork(PROCESS, [], { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.child.on('message', (message: FromProcess) => this.receive(message));
    this.child.once('exit', (code, signal) => this.fail(`the process of devices ${share.first} and following ended with ${code ?? signal}`));
    this.send({ kind: 'share', share });
  }

  send(message: ToProcess): void {
    if (this.child.connected) this.child.send(message);
  }

  ask(what: 'start' | 'play' | 'stop'): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.set(what, { resolve, reject });
      this.send({ kind: what });
      if (!this.child.connected) reject(new Error('the process is gone'));
    });
  }

  async end(): Promise<void> {
    const gone = this.child.exitCode === null && this.child.signalCode === null ? once(this.child, 'exit') : Promise.resolve();
    const late = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await this.ask('stop').catch(() => undefined);
    if (this.child.connected) this.child.disconnect();
    await gone;
    clearTimeout(late);
  }

  private receive(message: FromProcess): void {
    switch (message.kind) {
      case 'counts':
        this.counts = message.counts;
        return;
      case 'done':
        this.waiting.get(message.of)?.resolve();
        this.waiting.delete(message.of);
        return;
      case 'failed':
        return this.fail(message.message);
    }
  }

  private fail(message: string): void {
    for (const { reject } of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
  }
}
