import { randomBytes } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { sleep, type Fleet } from '@matfleet/harness';

export interface Garbage {
  readonly connections: number;
  /** Of them those that the device port had ended 15 seconds later. */
  readonly ended: number;
  /** Devices online before, and the fewest seen online while it lasted. */
  readonly onlineBefore: number;
  readonly onlineAtLeast: number;
  /** The slowest answer to an operator's call meanwhile, milliseconds. */
  readonly slowestCallMs: number;
}

const LASTS_MS = 15_000;
const PER_TICK = 50;

/**
 * Opens connections to the device port that speak nonsense: random bytes, plain HTTP, TLS that says nothing, TLS that sends frames of HTTP/2 that
 * are none, and messages far beyond the limit. Meanwhile the fleet is watched.
 */
export async function sendGarbage(fleet: Fleet, connections: number): Promise<Garbage> {
  const url = new URL(fleet.controlPlane.deviceUrl);
  const at = { host: '127.0.0.1', port: Number(url.port) };
  const online = async (): Promise<number> => (await fleet.controlPlane.api.devices()).filter(({ presence }) => presence === 'online').length;
  const onlineBefore = await online();
  let ended = 0;
  const sockets: Socket[] = [];
  const keep = (socket: Socket): Socket => {
    sockets.push(socket);
    return socket
      .on('error', () => undefined)
      .once('close', () => (ended += 1))
      .resume();
  };
  const kinds = [
    () => keep(connectTcp(at)).write(randomBytes(4_096)),
    () => keep(connectTcp(at)).write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
    () => keep(connectTls({ ...at, rejectUnauthorized: false, ALPNProtocols: ['h2'] })),
    () => keep(connectTls({ ...at, rejectUnauthorized: false, ALPNProtocols: ['h2'] })).write(randomBytes(64 * 1_024)),
    () => oversized(keep(connectTls({ ...at, rejectUnauthorized: false, ALPNProtocols: ['h2'] }))),
  ];
  const startedAtMs = performance.now();
  let onlineAtLeast = onlineBefore;
  let slowestCallMs = 0;
  const watch = async (): Promise<void> => {
    while (performance.now() - startedAtMs < LASTS_MS) {
      const askedAtMs = performance.now();
      onlineAtLeast = Math.min(onlineAtLeast, await online());
      slowestCallMs = Math.max(slowestCallMs, performance.now() - askedAtMs);
      await sleep(100);
    }
  };
  const send = async (): Promise<void> => {
    for (let sent = 0; sent < connections; sent++) {
      kinds[sent % kinds.length]!();
      if (sent % PER_TICK === PER_TICK - 1) await sleep(50);
    }
  };
  await Promise.all([watch(), send()]);
  const result = { connections, ended, onlineBefore, onlineAtLeast, slowestCallMs: Math.round(slowestCallMs) };
  for (const socket of sockets) socket.destroy();
  return result;
}

/** The preface, empty settings, and a frame that claims 16 MB. */
function oversized(socket: Socket): void {
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
  socket.write(Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), randomBytes(256 * 1_024)]));
}
