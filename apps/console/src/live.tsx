import { createContext, useContext, useEffect, useMemo, useState, type ReactNode } from 'react';
import { Connection, type ConnectionState } from './connection.js';

interface Live {
  /** Null until the first effect has run. */
  readonly connection: Connection | null;
  readonly state: ConnectionState;
}

const LiveContext = createContext<Live>({ connection: null, state: { kind: 'connecting' } });

/** Holds the page's one WebSocket while signed in. */
export function LiveProvider({ onSignedOut, children }: { readonly onSignedOut: () => void; readonly children: ReactNode }) {
  const [connection, setConnection] = useState<Connection | null>(null);
  const [state, setState] = useState<ConnectionState>({ kind: 'connecting' });
  useEffect(() => {
    const opened = new Connection(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/graphql`, setState);
    setConnection(opened);
    return () => opened.close();
  }, []);
  useEffect(() => {
    if (state.kind === 'signed-out') onSignedOut();
  }, [state, onSignedOut]);
  const live = useMemo(() => ({ connection, state }), [connection, state]);
  return <LiveContext value={live}>{children}</LiveContext>;
}

export const useLive = (): Live => useContext(LiveContext);

/** Runs `receive` for every event of a subscription, across reconnects. `receive` must be stable. */
export function useSubscription<T>(query: string, receive: (data: T) => void): void {
  const { connection } = useLive();
  useEffect(() => connection?.subscribe<T>(query, receive), [connection, query, receive]);
}

/** Runs `read` whenever the connection has become live: what happened before that was missed. `read` must be stable. */
export function useOnLive(read: () => void): void {
  const live = useLive().state.kind === 'live';
  useEffect(() => {
    if (live) read();
  }, [live, read]);
}
