import { Worker } from 'node:worker_threads';
import type { Encoded, Encoding } from './encode-piece.js';
import { encodePiece } from './encode-piece.js';
import type { RawRows } from './raw-rows.js';

interface Job {
  readonly piece: RawRows;
  readonly encoding: Encoding;
  readonly resolve: (encoded: Encoded) => void;
  readonly reject: (error: Error) => void;
}

export type EncoderAnswer = { readonly encoded: Encoded } | { readonly error: string };

/** Encodes pieces on several threads, each one piece at a time; with one thread on the caller's own. */
export class Encoders {
  private readonly waiting: Job[] = [];
  private readonly idle: Worker[] = [];
  private readonly running = new Map<Worker, Job>();
  private readonly workers: Worker[] = [];
  private broken: Error | undefined;

  constructor(threads: number, entry: URL = new URL('./encoder-thread.js', import.meta.url)) {
    for (let i = 0; i < (threads > 1 ? threads : 0); i++) {
      const worker = new Worker(entry);
      worker.on('message', (answer: EncoderAnswer) => this.finish(worker, answer));
      worker.on('error', (error) => this.fail(error instanceof Error ? error : new Error(String(error))));
      worker.on('exit', (code) => this.fail(new Error(`an encoder thread ended with code ${code}`)));
      this.workers.push(worker);
      this.idle.push(worker);
    }
  }

  /** Pieces to keep under way, so that no thread waits for the next one. */
  get width(): number {
    return Math.max(2, 2 * this.workers.length);
  }

  /** Takes the piece's buffer over. */
  encode(piece: RawRows, encoding: Encoding): Promise<Encoded> {
    if (this.workers.length === 0) return new Promise((resolve) => resolve(encodePiece(piece, encoding)));
    return new Promise((resolve, reject) => {
      if (this.broken) return reject(this.broken);
      this.waiting.push({ piece, encoding, resolve, reject });
      this.next();
    });
  }

  async close(): Promise<void> {
    this.fail(new Error('the import ended'));
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  private next(): void {
    while (this.idle.length > 0 && this.waiting.length > 0) {
      const [worker, job] = [this.idle.pop()!, this.waiting.shift()!];
      this.running.set(worker, job);
      worker.postMessage({ piece: job.piece, encoding: job.encoding }, [job.piece.bytes.buffer]);
    }
  }

  private finish(worker: Worker, answer: EncoderAnswer): void {
    const job = this.running.get(worker);
    this.running.delete(worker);
    this.idle.push(worker);
    if ('encoded' in answer) job?.resolve(answer.encoded);
    else job?.reject(new Error(answer.error));
    this.next();
  }

  private fail(error: Error): void {
    this.broken ??= error;
    for (const job of [...this.running.values(), ...this.waiting.splice(0)]) job.reject(this.broken);
    this.running.clear();
  }
}
