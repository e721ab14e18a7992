import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** What lies between device and control plane; without a `port` behind it, it takes connections and never says a word. */
export class Wire {
  url = '';
  private server: Server | undefined;
  private readonly sockets = new Set<Socket>();

  static async lay(port?: number): Promise<Wire> {
    const laid = new Wire(port);
    await laid.mend(0);
    return laid;
  }

  private constructor(private readonly port: number | undefined) {}

  /** The connections of this moment swallow what is sent and never end, as behind a NAT that forgot them; new ones work. */
  forget(): void {
    for (const socket of this.sockets) socket.unpipe().removeAllListeners('close').resume();
  }

  /** Every connection breaks, and no new one is accepted. */
  cut(): void {
    this.server?.close();
    this.sockets.forEach((socket) => socket.destroy());
    this.sockets.clear();
  }

  async mend(at = Number(new URL(this.url).port)): Promise<void> {
    this.server = createServer((near) => {
      this.keep(near);
      if (this.port === undefined) return;
      const far = this.keep(connect(this.port, '127.0.0.1'));
      near.pipe(far).pipe(near);
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
    }).listen(at, '127.0.0.1');
    await once(this.server, 'listening', { signal: AbortSignal.timeout(5_000) });
    this.url = `https://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  private keep(socket: Socket): Socket {
    this.sockets.add(socket.on('error', () => {}).on('close', () => this.sockets.delete(socket)));
    return socket;
  }
}
