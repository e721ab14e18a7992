/** Lets one holder in at a time, in order of arrival; a bounded number may wait. */
export class TurnQueue {
  readonly #waiting: (() => void)[] = [];
  #held = 0;

  constructor(private readonly maxWaiting: number) {}

  get waiting(): number {
    return this.#waiting.length;
  }

  get held(): number {
    return this.#held;
  }

  /**
   * Resolves with the function that gives the turn back (safe to repeat). `full` when the queue is full; rejects with the signal's reason when it aborts
   * before the turn came.
   */
  enter(signal: AbortSignal): Promise<() => void> | 'full' {
    if (this.#held > 0 && this.#waiting.length >= this.maxWaiting) return 'full';
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const take = (): void => {
        signal.removeEventListener('abort', leave);
        this.#held += 1;
        let given = false;
        resolve(() => {
          if (given) return;
          given = true;
          this.#held -= 1;
          this.#waiting.shift()?.();
        });
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', leave, { once: true });
      if (this.#held === 0) take();
      else this.#waiting.push(take);
    });
  }
}
