import { DomainError } from '../errors.js';
import { currentScope, inScope, type Scope } from './scope.js';

const BATCH_MAX = 500;
const WAITING_MAX = 100_000;
const DEADLOCK_TRIES = 5;

interface Waiting<T, R> {
  readonly item: T;
  readonly scope: Scope;
  readonly resolve: (result: R) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Does together what is asked one by one: whatever comes while a batch is under way forms the next one. A quiet process pays one statement
 * for one item, a busy one the same statement for hundreds. What is asked in one tenant's scope never shares a batch with another's, and runs in it.
 */
export class Batcher<T, R> {
  private waiting: Waiting<T, R>[] = [];
  private busy = false;

  /**
   * @param run answers the items of one batch in their order, from a state read after the batch began
   * @param keyOf items of the same key never share a batch; they run in their order. Absent: any items may
   */
  constructor(
    private readonly run: (items: readonly T[]) => Promise<readonly R[]>,
    private readonly keyOf?: (item: T) => string,
  ) {}

  /** Rejects with what its batch rejected with; a fault of one item's data does not spoil the others. */
  add(item: T): Promise<R> {
    if (this.waiting.length >= WAITING_MAX)
      return Promise.reject(new DomainError('unavailable', `${this.waiting.length} statements wait for the database: it does not keep up`));
    const scope = currentScope();
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, scope, resolve, reject });
      if (this.busy) return;
      this.busy = true;
      // What else this turn of the event loop asks for goes along.
      setImmediate(() => void this.work());
    });
  }

  private async work(): Promise<void> {
    while (this.waiting.length > 0) {
      const batch = this.take();
      await inScope(batch[0]!.scope, () => this.settle(batch));
    }
    this.busy = false;
  }

  private take(): Waiting<T, R>[] {
    const scope = nameOf(this.waiting[0]!.scope);
    const batch: Waiting<T, R>[] = [];
    const later: Waiting<T, R>[] = [];
    const keys = new Set<string>();
    for (const entry of this.waiting) {
      const key = this.keyOf?.(entry.item);
      if (batch.length >= BATCH_MAX || nameOf(entry.scope) !== scope || (key !== undefined && keys.has(key))) later.push(entry);
      else batch.push(entry);
      if (key !== undefined) keys.add(key);
    }
    this.waiting = later;
    return batch;
  }

  /** Statements of many rows meet in the same table; one that a deadlock undid is done again. */
  private async undisturbed(items: readonly T[]): Promise<readonly R[]> {
    for (let tries = 1; ; tries += 1)
      try {
        return await this.run(items);
      } catch (error) {
        if (tries >= DEADLOCK_TRIES || !isDeadlock(error)) throw error;
      }
  }

  private async settle(batch: readonly Waiting<T, R>[]): Promise<void> {
    try {
      const results = await this.undisturbed(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => resolve(results[index]!));
    } catch (error) {
      if (batch.length === 1 || !isFaultOfData(error)) return batch.forEach(({ reject }) => reject(error));
      const half = batch.length >> 1;
      await this.settle(batch.slice(0, half));
      await this.settle(batch.slice(half));
    }
  }
}

const nameOf = (scope: Scope): string => (scope.kind === 'tenant' ? scope.tenantId : '');

/** Two statements locked the same rows in different orders, and PostgreSQL has undone this one. */
const isDeadlock = (error: unknown): boolean => codesOf(error).includes('40P01');

/** PostgreSQL's classes 22, a value that cannot be stored, and 23, a rule that it breaks: the fault of one row, not of the server. */
const isFaultOfData = (error: unknown): boolean => codesOf(error).some((code) => /^2[23][0-9A-Z]{3}$/.test(code));

/** Of the error and of what it wraps. */
function codesOf(error: unknown): string[] {
  const codes: string[] = [];
  for (let at = error, depth = 0; typeof at === 'object' && at !== null && depth < 6; depth += 1) {
    const { code, originalCode, meta, driverAdapterError, cause } = at as Record<string, unknown>;
    for (const value of [code, originalCode]) if (typeof value === 'string') codes.push(value);
    at = driverAdapterError ?? meta ?? cause;
  }
  return codes;
}
