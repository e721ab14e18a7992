/** Interactive goes before normal, that before background. */
export type Priority = 'interactive' | 'normal' | 'background';

/** Who asks, and how urgently. Callers of one class take turns, however much each of them asks. */
export interface Claim {
  readonly caller: string;
  readonly priority: Priority;
}

const RANKS: Record<Priority, number> = { interactive: 0, normal: 1, background: 2 };
/** Nobody is passed over by more later ones than this. */
const MOST_PASSED_OVER = 16;
/** Callers whose last turn is remembered. */
const MOST_CALLERS = 64;

interface Waiting {
  readonly claim: Claim;
  readonly take: () => void;
  passedOver: number;
}

/** Lets one holder in at a time; a bounded number may wait. */
export class TurnQueue {
  /** In order of arrival. */
  readonly #waiting: Waiting[] = [];
  /** By caller, the turn it last had; the latest ones last. */
  readonly #lastTurns = new Map<string, number>();
  #turn = 0;
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
  enter(signal: AbortSignal, claim: Claim = { caller: '', priority: 'normal' }): Promise<() => void> | 'full' {
    if (this.#held > 0 && this.#waiting.length >= this.maxWaiting) return 'full';
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const take = (): void => {
        signal.removeEventListener('abort', leave);
        this.#held += 1;
        this.#remember(claim.caller);
        let given = false;
        resolve(() => {
          if (given) return;
          given = true;
          this.#held -= 1;
          this.#next()?.take();
        });
      };
      const entry: Waiting = { claim, take, passedOver: 0 };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', leave, { once: true });
      if (this.#held === 0) take();
      else this.#waiting.push(entry);
    });
  }

  /** Takes the next one out. */
  #next(): Waiting | undefined {
    const next =
      this.#waiting.find(({ passedOver }) => passedOver >= MOST_PASSED_OVER) ?? [...this.#waiting].sort((a, b) => this.#order(a.claim, b.claim))[0];
    if (!next) return undefined;
    const at = this.#waiting.indexOf(next);
    for (const passed of this.#waiting.slice(0, at)) passed.passedOver += 1;
    this.#waiting.splice(at, 1);
    return next;
  }

  /** Sorting is stable: where nothing else tells, who came first goes first. */
  #order(a: Claim, b: Claim): number {
    const turnOf = ({ caller }: Claim): number => this.#lastTurns.get(caller) ?? -1;
    return RANKS[a.priority] - RANKS[b.priority] || turnOf(a) - turnOf(b);
  }

  #remember(caller: string): void {
    this.#lastTurns.delete(caller);
    this.#lastTurns.set(caller, this.#turn++);
    if (this.#lastTurns.size > MOST_CALLERS) this.#lastTurns.delete(this.#lastTurns.keys().next().value!);
  }
}
