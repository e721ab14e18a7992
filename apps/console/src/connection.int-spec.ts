import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { Connection, type ConnectionState } from './connection.js';

/** A server that speaks graphql-transport-ws over a real socket and sends what the test tells it. */
class ScriptedServer {
  readonly http: Server = createServer((_request, response) => {
    response.writeHead(this.signedIn ? 200 : 401, { 'content-type': 'application/json' });
    response.end(JSON.stringify(this.signedIn ? { data: { __typename: 'Query' } } : { code: 'unauthenticated', message: 'sign in' }));
  });
  readonly sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'graphql-transport-ws' });
  readonly subscribed: string[] = [];
  signedIn = true;
  accepts = true;
  answersPings = true;

  async listen(port = 0): Promise<void> {
    this.http.on('upgrade', (request, socket, head) => {
      if (!this.accepts || !this.signedIn) return void socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
      this.sockets.handleUpgrade(request, socket, head, (ws) => this.serve(ws));
    });
    this.http.listen(port, '127.0.0.1');
    await once(this.http, 'listening');
  }

  get address(): string {
    return `127.0.0.1:${(this.http.address() as AddressInfo).port}`;
  }

  send(payload: object): void {
    for (const ws of this.sockets.clients)
      for (const id of this.ids.get(ws) ?? []) ws.send(JSON.stringify({ id, type: 'next', payload: { data: payload } }));
  }

  drop(): void {
    for (const ws of this.sockets.clients) ws.terminate();
  }

  close(): void {
    this.drop();
    this.http.close();
  }

  private readonly ids = new Map<WebSocket, string[]>();

  private serve(ws: WebSocket): void {
    this.sockets.emit('connection', ws);
    ws.on('message', (raw) => {
      const message = JSON.parse(String(raw)) as { type: string; id: string; payload?: { query: string } };
      if (message.type === 'connection_init') ws.send('{"type":"connection_ack"}');
      if (message.type === 'ping' && this.answersPings) ws.send('{"type":"pong"}');
      if (message.type !== 'subscribe') return;
      this.subscribed.push(message.payload!.query);
      this.ids.set(ws, [...(this.ids.get(ws) ?? []), message.id]);
    });
  }
}

const globals = globalThis as { WebSocket?: unknown; fetch: typeof fetch };
const { WebSocket: itsWebSocket, fetch: itsFetch } = globals;

describe('connection', () => {
  let server: ScriptedServer;
  let connection: Connection;
  const states: ConnectionState['kind'][] = [];
  const received: unknown[] = [];

  beforeEach(async () => {
    server = new ScriptedServer();
    await server.listen();
    // What a browser has: a WebSocket, and addresses relative to the page.
    globals.WebSocket = WebSocket;
    globals.fetch = (path, init) => itsFetch(`http://${server.address}${String(path)}`, init);
    states.length = 0;
    received.length = 0;
    connection = open();
    connection.subscribe('subscription { deviceChanged { id } }', (data) => received.push(data));
    await until(() => server.subscribed.length === 1);
  });

  afterEach(() => {
    connection.close();
    server.close();
    Object.assign(globals, { WebSocket: itsWebSocket, fetch: itsFetch });
  });

  const open = (): Connection =>
    new Connection(`ws://${server.address}/graphql`, (state) => states.push(state.kind), { pingEveryMs: 500, pongWithinMs: 300 });

  it('delivers events and, after a lost socket, subscribes again by itself', async () => {
    server.send({ deviceChanged: { id: 'a' } });
    await until(() => received.length === 1);
    server.drop();
    await until(() => server.subscribed.length === 2);
    expect(states.filter((kind, i) => kind !== states[i - 1])).toEqual(['live', 'lost', 'live']);
    server.send({ deviceChanged: { id: 'b' } });
    await until(() => received.length === 2);
    expect(received).toEqual([{ deviceChanged: { id: 'a' } }, { deviceChanged: { id: 'b' } }]);
  });

  it('does not take up a subscription again that was ended while the socket was away', async () => {
    const stop = connection.subscribe('subscription { rolloutChanged { id } }', () => undefined);
    await until(() => server.subscribed.length === 2);
    server.drop();
    stop();
    await until(() => server.subscribed.length === 3);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(server.subscribed.at(-1)).toContain('deviceChanged');
    expect(server.subscribed).toHaveLength(3);
  });

  it('keeps trying while nobody answers, and at once when told to', async () => {
    server.accepts = false;
    server.drop();
    await until(() => states.at(-1) === 'lost');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(states.filter((kind) => kind === 'live')).toHaveLength(1);
    server.accepts = true;
    connection.retryNow();
    await until(() => states.at(-1) === 'live');
  });

  it('stops and says so when the session has ended', async () => {
    server.signedIn = false;
    server.drop();
    await until(() => states.at(-1) === 'signed-out');
    const tries = server.subscribed.length;
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(server.subscribed).toHaveLength(tries);
  });

  it('notices a socket that is open but silent', async () => {
    server.answersPings = false;
    await until(() => states.includes('lost'));
  });
});

async function until(reached: () => boolean, timeoutMs = 5_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!reached()) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
