import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';

/** A way to a PostgreSQL that counts what is asked of it: `Query` and `Execute` messages of the wire protocol, version 3. */
export async function countStatements(databaseUrl: string): Promise<{ readonly url: string; count(): number; stop(): Promise<void> }> {
  const target = new URL(databaseUrl);
  let statements = 0;
  const server = createServer((client) => {
    const database = connect(Number(target.port), target.hostname);
    // The first message of a connection has no type byte.
    let [buffered, started] = [Buffer.alloc(0), false];
    client.on('data', (bytes: Buffer) => {
      database.write(bytes);
      buffered = Buffer.concat([buffered, bytes]);
      for (;;) {
        const at = started ? 1 : 0;
        if (buffered.length < at + 4) return;
        const length = at + buffered.readInt32BE(at);
        if (buffered.length < length) return;
        const type = started ? String.fromCharCode(buffered[0]!) : '';
        if (type === 'Q' || type === 'E') statements += 1;
        started = true;
        buffered = buffered.subarray(length);
      }
    });
    database.pipe(client);
    client.on('end', () => database.end());
    for (const socket of [client, database]) socket.on('error', () => [client, database].forEach((one) => one.destroy()));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(databaseUrl);
  url.hostname = '127.0.0.1';
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    count: () => statements,
    stop: async () => {
      server.close();
      await once(server, 'close');
    },
  };
}
