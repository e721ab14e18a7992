import { createClient, type Client } from 'graphql-ws';
import { checkSession, isSignedOut } from './api.js';
import { backoffMs } from './backoff.js';

export type ConnectionState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'live' }
  /** `nextTryAtMs` is null while a try is under way. */
  | { readonly kind: 'lost'; readonly sinceMs: number; readonly nextTryAtMs: number | null }
  | { readonly kind: 'signed-out' };

interface Subscription {
  readonly query: string;
  readonly variables: Record<string, unknown>;
  readonly next: (data: never) => void;
  stop: () => void;
}

/**
 * The WebSocket for subscriptions (graphql-transport-ws). It reconnects for ever with backoff, resumes every subscription, and says
 * what state it is in; after `live` the owner reads again what it may have missed.
 */
export class Connection {
  #client: Client | undefined;
  #state: ConnectionState = { kind: 'connecting' };
  #attempt = 0;
  #closed = false;
  #wake: (() => void) | undefined;
  readonly #subscriptions = new Set<Subscription>();

  constructor(
    private readonly url: string,
    private readonly onState: (state: ConnectionState) => void,
    private readonly silence = { pingEveryMs: 10_000, pongWithinMs: 5_000 },
  ) {
    void this.#run();
  }

  /** Delivers every event until the returned function is called. */
  subscribe<T>(query: string, next: (data: T) => void, variables: Record<string, unknown> = {}): () => void {
    const subscription: Subscription = { query, variables, next, stop: () => undefined };
    this.#subscriptions.add(subscription);
    if (this.#client) this.#start(this.#client, subscription);
    return () => {
      this.#subscriptions.delete(subscription);
      subscription.stop();
    };
  }

  /** Ends the wait before the next try. */
  retryNow(): void {
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
    void this.#client?.dispose();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const startedMs = Date.now();
      await this.#session();
      if (this.#closed) return;
      // A socket that is accepted and closed at once is still a failing one.
      if (Date.now() - startedMs > 10_000) this.#attempt = 0;
      if (await endedByServer()) return this.#enter({ kind: 'signed-out' });
      await this.#wait(backoffMs(this.#attempt++, Math.random()));
    }
  }

  /** One socket, from its opening to its end. */
  #session(): Promise<void> {
    return new Promise((resolve) => {
      const client = createClient({
        url: this.url,
        lazy: false,
        retryAttempts: 0,
        connectionAckWaitTimeout: 10_000,
        // A half-open socket shows as a missing pong: the peer answers each ping, and silence after one ends the session.
        keepAlive: this.silence.pingEveryMs,
        onNonLazyError: () => resolve(),
      });
      let pongTimer: ReturnType<typeof setTimeout> | undefined;
      client.on('ping', (received) => {
        if (!received) pongTimer = setTimeout(() => client.terminate(), this.silence.pongWithinMs);
      });
      client.on('pong', (received) => {
        if (received) clearTimeout(pongTimer);
      });
      client.on('connected', () => this.#enter({ kind: 'live' }));
      client.on('closed', () => {
        clearTimeout(pongTimer);
        this.#client = undefined;
        void client.dispose();
        resolve();
      });
      this.#client = client;
      for (const subscription of this.#subscriptions) this.#start(client, subscription);
    });
  }

  #start(client: Client, subscription: Subscription): void {
    subscription.stop = client.subscribe<Record<string, unknown>>(
      { query: subscription.query, variables: subscription.variables },
      {
        next: ({ data, errors }) => {
          if (errors?.length) console.error('subscription event with errors', errors);
          if (data) subscription.next(data as never);
        },
        // A lost socket ends every subscription with an error; the next session starts it again.
        error: (error) => {
          if (Array.isArray(error)) console.error('subscription refused', error);
        },
        complete: () => undefined,
      },
    );
  }

  #wait(ms: number): Promise<void> {
    const sinceMs = this.#state.kind === 'lost' ? this.#state.sinceMs : Date.now();
    this.#enter({ kind: 'lost', sinceMs, nextTryAtMs: Date.now() + ms });
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        if (!this.#closed) this.#enter({ kind: 'lost', sinceMs, nextTryAtMs: null });
        resolve();
      };
    });
  }

  #enter(state: ConnectionState): void {
    if (this.#closed) return;
    this.#state = state;
    this.onState(state);
  }
}

/** A socket that does not open tells no reason; a plain request does. */
async function endedByServer(): Promise<boolean> {
  try {
    await checkSession();
    return false;
  } catch (error) {
    return isSignedOut(error);
  }
}
