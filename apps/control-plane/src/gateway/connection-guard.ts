import type { Http2Server, ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Server } from '@grpc/grpc-js';
import { CONNECTIONS_PER_SECOND } from '../domain/reconnect.js';
import { TokenBucket } from './token-bucket.js';

/** A device needs one connection, a ping every 25 s, and a stream for its session and for each chunk that it fetches. */
export interface ConnectionLimits {
  /** Open at once. */
  readonly connections: number;
  /** TLS handshakes begun in a second, after a burst of half as many. */
  readonly connectionsPerSecond: number;
  /** Of one connection, on average and at once. */
  readonly pingsPerSecond: number;
  readonly pingsAtOnce: number;
  readonly streamsPerSecond: number;
  readonly streamsAtOnce: number;
  /** From the handshake to the first stream: a device connects because it has something to say. */
  readonly firstStreamMs: number;
}

export const CONNECTION_LIMITS: ConnectionLimits = {
  connections: 50_000,
  connectionsPerSecond: CONNECTIONS_PER_SECOND,
  pingsPerSecond: 1,
  pingsAtOnce: 50,
  streamsPerSecond: 100,
  streamsAtOnce: 1_000,
  firstStreamMs: 10_000,
};

/** Refused before its handshake, or cut off because its client floods us. */
export type Guarded = 'connections' | 'handshakes' | 'pings' | 'streams' | 'silent';

/** Bounds what connections cost before any call is looked at: grpc-js itself counts neither handshakes nor frames. `share`: how much of the handshakes is begun now. */
export function guardConnections(server: Server, limits: ConnectionLimits, refused: (why: Guarded) => void, share: () => number = () => 1): void {
  for (const http2Server of http2ServersOf(server)) guard(http2Server, limits, refused, share);
}

function guard(server: Http2Server, limits: ConnectionLimits, refused: (why: Guarded) => void, share: () => number): void {
  const { connectionsPerSecond: perSecond } = limits;
  const handshakes = new TokenBucket(perSecond, Math.ceil(perSecond / 2), performance.now(), undefined, share);
  server.maxConnections = limits.connections;
  server.on('drop', () => refused('connections'));
  // Before TLS begins: a handshake costs a millisecond of processor, a reset none.
  server.prependListener('connection', (socket: Socket) => {
    if (handshakes.take(performance.now())) return;
    refused('handshakes');
    socket.resetAndDestroy();
  });
  server.on('session', (session: ServerHttp2Session) => {
    const nowMs = performance.now();
    const pings = new TokenBucket(limits.pingsPerSecond, limits.pingsAtOnce, nowMs);
    const streams = new TokenBucket(limits.streamsPerSecond, limits.streamsAtOnce, nowMs);
    const cut = (why: Guarded): void => {
      if (session.destroyed) return;
      refused(why);
      session.destroy();
    };
    const silent = setTimeout(() => cut('silent'), limits.firstStreamMs);
    const spoken = (): void => clearTimeout(silent);
    session.once('stream', spoken).once('close', spoken);
    session.on('ping', () => void (pings.take(performance.now()) || cut('pings')));
    session.on('stream', () => void (streams.take(performance.now()) || cut('streams')));
  });
}

/** grpc-js shows its HTTP/2 servers to nobody; a spec notices when this place has moved. */
function http2ServersOf(server: Server): Http2Server[] {
  const { http2Servers } = server as unknown as { http2Servers?: Map<Http2Server, unknown> };
  if (!http2Servers || http2Servers.size === 0) throw new Error('this version of @grpc/grpc-js keeps its HTTP/2 servers elsewhere');
  return [...http2Servers.keys()];
}
