import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** What stands before several replicas: passes each new connection on to the next one that takes it. */
export class Balancer {
  private readonly sockets = new Set<Socket>();
  private next = 0;

  private constructor(
    private readonly server: Server,
    private readonly ports: readonly number[],
  ) {}

  static async start(ports: readonly number[]): Promise<Balancer> {
    const server = createServer({ pauseOnConnect: true }).listen({ host: '127.0.0.1', port: 0, backlog: 4_096 });
    await once(server, 'listening');
    const balancer = new Balancer(server, ports);
    server.on('connection', (near) => balancer.pass(near, ports.length));
    return balancer;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private pass(near: Socket, tries: number): void {
    const far = connect(this.ports[this.next++ % this.ports.length]!, '127.0.0.1');
    this.keep(far);
    const refused = (): void => {
      if (tries > 1 && !near.destroyed) this.pass(near, tries - 1);
      else near.destroy();
    };
    far.once('error', refused);
    far.once('connect', () => {
      far.off('error', refused);
      for (const socket of [near, far]) socket.setNoDelay(true);
      this.keep(near);
      near.pipe(far).pipe(near);
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
    });
  }

  private keep(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => this.sockets.delete(socket));
  }
}
