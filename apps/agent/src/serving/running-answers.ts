import { status } from '@grpc/grpc-js';
import type { RunningEngine, SliceChange } from '../engine/engine-host.js';
import { ServingError } from './serving-error.js';

/** Throws NOT_FOUND, with what the device holds, for any other slice. */
export function checkHeld(engine: RunningEngine, sliceId: string): void {
  const { heldSlices } = engine.status();
  if (!heldSlices.includes(sliceId))
    throw new ServingError(status.NOT_FOUND, `slice ${sliceId} is not held by this device; it holds ${heldSlices.join(', ')}`);
}

interface Running {
  readonly engine: RunningEngine;
  /** Its caller named the slice. */
  readonly named: boolean;
  readonly change: (to: SliceChange) => void;
}

/** The answers that an engine is working on, by request id. */
export class RunningAnswers {
  readonly #byId = new Map<string, Running>();

  /** Until disposed. */
  add(requestId: string, running: Running): Disposable {
    this.#byId.set(requestId, running);
    return { [Symbol.dispose]: () => void (this.#byId.get(requestId) === running && this.#byId.delete(requestId)) };
  }

  /** All answers go on with this slice but those whose callers named theirs. */
  changeUnnamed(to: SliceChange): void {
    for (const { engine, named, change } of this.#byId.values()) if (!named && engine.status().heldSlices.includes(to.sliceId)) change(to);
  }

  /** From its next token on the answer comes from this slice. Throws NOT_FOUND. */
  changeSlice(requestId: string, to: SliceChange): void {
    const running = this.#byId.get(requestId);
    if (!running) throw new ServingError(status.NOT_FOUND, `no answer with the request id "${requestId}" is running`);
    checkHeld(running.engine, to.sliceId);
    running.change(to);
  }
}
