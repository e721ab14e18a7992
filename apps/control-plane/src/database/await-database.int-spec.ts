import { connect, createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { awaitDatabase } from './await-database.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database?.drop());

it('waits for a database that nobody can connect to yet', async () => {
  const { hostname, port } = new URL(database.url);
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: later } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const url = Object.assign(new URL(database.url), { hostname: '127.0.0.1', port: String(later) }).href;
  await expect(awaitDatabase(url, 300)).rejects.toThrow('PostgreSQL was not there within 300 ms');
  const waiting = awaitDatabase(url, 20_000);
  setTimeout(() => server.listen(later, '127.0.0.1'), 500);
  await waiting;
  server.close();
});

it('tells at once that there is no such database', async () => {
  const url = Object.assign(new URL(database.url), { pathname: '/none_of_this_name' }).href;
  await expect(awaitDatabase(url, 20_000)).rejects.toThrow('none_of_this_name');
});
