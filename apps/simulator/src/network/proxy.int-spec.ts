import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { FaultyNetwork } from './proxy.js';

describe('a network that breaks', () => {
  let server: Server;
  let network: FaultyNetwork;
  let port: number;
  const accepted: Socket[] = [];
  const dialled: Socket[] = [];

  beforeEach(async () => {
    // Answers every byte with itself.
    server = createServer((socket) => {
      accepted.push(socket);
      socket.on('error', () => undefined);
      socket.pipe(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    network = new FaultyNetwork({ host: '127.0.0.1', port: (server.address() as AddressInfo).port }, () => 0.5);
    port = await network.listen();
  });

  afterEach(async () => {
    for (const socket of [...dialled.splice(0), ...accepted.splice(0)]) socket.destroy();
    await network.close();
    server.close();
  });

  async function dial(): Promise<{ socket: Socket; heard: () => string; say: (text: string) => void }> {
    const socket = connect({ host: '127.0.0.1', port });
    dialled.push(socket);
    let text = '';
    socket.on('data', (bytes: Buffer) => (text += bytes.toString()));
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return { socket, heard: () => text, say: (said) => void socket.write(said) };
  }

  async function until(what: string, probe: () => boolean, timeoutMs = 5_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!probe()) {
      if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
      await sleep(5);
    }
  }

  it('carries bytes both ways, and the end of either side', async () => {
    const { socket, heard, say } = await dial();
    say('hello');
    await until('the echo', () => heard() === 'hello');
    accepted[0]!.end('bye');
    await until('the end', () => socket.closed);
    expect(heard()).toBe('hellobye');
    await until('the proxy to forget the connection', () => network.connections === 0);
  });

  it('drop: cuts what is there and refuses what comes, until it is over', async () => {
    const { socket, say, heard } = await dial();
    say('x');
    await until('the echo', () => heard() === 'x');
    network.drop(true);
    await until('the cut', () => socket.closed);
    const refused = connect({ host: '127.0.0.1', port });
    dialled.push(refused);
    refused.on('error', () => undefined);
    await until('the refusal', () => refused.closed);
    network.drop(false);
    const again = await dial();
    again.say('y');
    await until('the echo', () => again.heard() === 'y');
  });

  it('freeze: nothing moves and nothing closes; then all of it comes, in order', async () => {
    const { socket, say, heard } = await dial();
    say('a');
    await until('the echo', () => heard() === 'a');
    network.freeze(true);
    say('b');
    await sleep(100);
    say('c');
    await sleep(100);
    expect([heard(), socket.closed]).toEqual(['a', false]);
    network.freeze(false);
    await until('what waited', () => heard() === 'abc');
  });

  it('half-open: swallows what is sent on the connections of that moment, tells neither side, and lets new ones work', async () => {
    const { socket, say, heard } = await dial();
    say('a');
    await until('the echo', () => heard() === 'a');
    network.halfOpen();
    say('b');
    accepted[0]!.end();
    await sleep(200);
    expect([heard(), socket.closed]).toEqual(['a', false]);
    const again = await dial();
    again.say('c');
    await until('the echo', () => again.heard() === 'c');
    socket.destroy();
    await until('the proxy to forget the dead connection', () => network.connections === 1);
  });

  it('delay: every byte comes later, in order, within bounded memory', async () => {
    const { say, heard } = await dial();
    network.delay(100, 50);
    const startedAt = performance.now();
    const text = 'x'.repeat(1_000_000);
    say(text);
    say('end');
    await until('all of it', () => heard().length === text.length + 3, 20_000);
    expect(performance.now() - startedAt).toBeGreaterThan(200);
    expect(heard().endsWith('end')).toBe(true);
  });
});
