import { connect, type ClientHttp2Session } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { once } from 'node:events';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from '@jest/globals';
import { CONNECTION_LIMITS, guardConnections, type ConnectionLimits, type Guarded } from './connection-guard.js';

describe('the guard of connections', () => {
  let server: Server;
  const refused: Guarded[] = [];
  const clients: ClientHttp2Session[] = [];

  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
    server.forceShutdown();
    refused.length = 0;
  });

  async function serve(limits: Partial<ConnectionLimits>): Promise<number> {
    server = new Server();
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    guardConnections(server, { ...CONNECTION_LIMITS, ...limits }, (why) => refused.push(why));
    return port;
  }
  async function dial(port: number): Promise<{ client: ClientHttp2Session; closed: Promise<unknown> }> {
    const client = connect(`http://127.0.0.1:${port}`);
    clients.push(client);
    client.on('error', () => undefined);
    const closed = once(client, 'close');
    await once(client, 'connect');
    return { client, closed };
  }
  const ping = (client: ClientHttp2Session): Promise<boolean> =>
    new Promise((resolve) => (client.destroyed || !client.ping((error) => resolve(!error)) ? resolve(false) : undefined));

  it('cuts off a connection that floods it with pings, and answers another one meanwhile', async () => {
    const port = await serve({ pingsPerSecond: 1, pingsAtOnce: 10 });
    const [flood, quiet] = [await dial(port), await dial(port)];
    let answered = 0;
    while (answered < 1_000 && (await ping(flood.client))) answered += 1;
    await flood.closed;
    expect(answered).toBeGreaterThanOrEqual(10);
    expect(answered).toBeLessThan(20);
    expect(refused).toEqual(['pings']);
    expect(await ping(quiet.client)).toBe(true);
  });

  it('cuts off a connection that opens streams without end', async () => {
    const port = await serve({ streamsPerSecond: 1, streamsAtOnce: 20 });
    const { client, closed } = await dial(port);
    for (let i = 0; i < 40; i += 1)
      client.request({ ':method': 'POST', ':path': '/none', 'content-type': 'application/grpc' }).on('error', () => undefined);
    await closed;
    expect(refused).toEqual(['streams']);
  });

  it('cuts off a connection on which no call comes, and leaves one alone whose call has ended', async () => {
    const port = await serve({ firstStreamMs: 300 });
    const [silent, spoken] = [await dial(port), await dial(port)];
    const call = spoken.client.request({ ':method': 'POST', ':path': '/none', 'content-type': 'application/grpc' });
    call.on('error', () => undefined).resume();
    await once(call, 'close');
    await silent.closed;
    expect(refused).toEqual(['silent']);
    expect(await ping(spoken.client)).toBe(true);
  });

  it('resets connections beyond its rate before their handshake, and takes the next one a second later', async () => {
    const port = await serve({ connectionsPerSecond: 20 });
    const outcomes = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const socket = connectTcp(port, '127.0.0.1');
        const gone = await Promise.race([
          new Promise<boolean>((resolve) => void socket.once('error', () => resolve(true)).once('close', () => resolve(true))),
          new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 500)),
        ]);
        socket.destroy();
        return gone;
      }),
    );
    expect(outcomes.filter((gone) => !gone).length).toBeGreaterThanOrEqual(10);
    expect(outcomes.filter((gone) => gone).length).toBeGreaterThanOrEqual(15);
    expect(refused.every((why) => why === 'handshakes')).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await ping((await dial(port)).client)).toBe(true);
  });
});
