import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** Bytes of one direction of one connection that may wait for their delay. */
const WAITING_BYTES_MAX = 256 * 1024;

/** A TCP proxy through which a group of devices dials, and on whose sockets that group's network breaks. */
export class FaultyNetwork {
  private readonly pairs = new Set<Pair>();
  private readonly server: Server;
  private refusing = false;
  private frozen = false;
  private readonly weather = { delayMs: 0, jitterMs: 0 };

  constructor(
    private readonly upstream: { readonly host: string; readonly port: number },
    private readonly random: () => number,
  ) {
    this.server = createServer((socket) => this.accept(socket));
  }

  /** The loopback port to dial. */
  listen(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => resolve((this.server.address() as AddressInfo).port));
    });
  }

  get connections(): number {
    return this.pairs.size;
  }

  /** Resets every connection and, until `false`, every new one. */
  drop(on: boolean): void {
    this.refusing = on;
    if (on) for (const pair of this.pairs) pair.reset();
  }

  /** Nothing moves, nothing closes; `false` lets everything that waits go on. */
  freeze(on: boolean): void {
    this.frozen = on;
    for (const pair of this.pairs) pair.freeze(on);
  }

  /** The connections of this moment swallow whatever is sent and are never closed, as behind a NAT that forgot them; new ones work. */
  halfOpen(): void {
    for (const pair of this.pairs) pair.swallow();
  }

  /** Every byte comes later, in order; 0 ends it. */
  delay(delayMs: number, jitterMs = 0): void {
    Object.assign(this.weather, { delayMs, jitterMs });
  }

  async close(): Promise<void> {
    for (const pair of this.pairs) pair.reset();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private accept(near: Socket): void {
    if (this.refusing) {
      near.on('error', () => undefined);
      near.resetAndDestroy();
      return;
    }
    const pair: Pair = new Pair(near, connect(this.upstream), this.weather, this.random, () => this.pairs.delete(pair));
    this.pairs.add(pair);
    if (this.frozen) pair.freeze(true);
  }
}

class Pair {
  private readonly lanes: readonly [Lane, Lane];

  constructor(
    private readonly near: Socket,
    private readonly far: Socket,
    weather: { readonly delayMs: number; readonly jitterMs: number },
    random: () => number,
    gone: () => void,
  ) {
    this.lanes = [new Lane(near, far, weather, random), new Lane(far, near, weather, random)];
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.setNoDelay(true);
      socket.on('error', () => this.lanes[0].dead || this.reset());
      socket.on('close', () => {
        // The end of one side is news to the other, unless the network swallows it; then each must find out by itself.
        if (!this.lanes[0].dead) other.destroySoon();
        if (near.destroyed && far.destroyed) gone();
      });
    }
  }

  freeze(on: boolean): void {
    for (const lane of this.lanes) lane.freeze(on);
  }

  swallow(): void {
    for (const lane of this.lanes) lane.swallow();
  }

  reset(): void {
    for (const lane of this.lanes) lane.stop();
    for (const socket of [this.near, this.far]) if (!socket.destroyed) socket.resetAndDestroy();
  }
}

/** Bytes from one socket to the other. */
class Lane {
  dead = false;
  private frozen = false;
  private lastAtMs = 0;
  private waiting: { readonly atMs: number; readonly bytes: Buffer }[] = [];
  private waitingBytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly from: Socket,
    private readonly to: Socket,
    private readonly weather: { readonly delayMs: number; readonly jitterMs: number },
    private readonly random: () => number,
  ) {
    from.on('data', (bytes: Buffer) => this.take(bytes));
    to.on('drain', () => this.pace());
  }

  freeze(on: boolean): void {
    this.frozen = on;
    this.pace();
    if (!on) this.release();
  }

  swallow(): void {
    this.dead = true;
    this.stop();
    this.from.resume();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.waiting = [];
    this.waitingBytes = 0;
  }

  private take(bytes: Buffer): void {
    if (this.dead) return;
    const { delayMs, jitterMs } = this.weather;
    if (delayMs === 0 && this.waiting.length === 0 && !this.frozen) {
      this.to.write(bytes);
      return this.pace();
    }
    const atMs = Math.max(this.lastAtMs, performance.now() + delayMs + this.random() * jitterMs);
    this.lastAtMs = atMs;
    this.waiting.push({ atMs, bytes });
    this.waitingBytes += bytes.length;
    this.pace();
    this.release();
  }

  private release(): void {
    clearTimeout(this.timer);
    if (this.frozen) return;
    const nowMs = performance.now();
    while (this.waiting.length > 0 && this.waiting[0]!.atMs <= nowMs) {
      const { bytes } = this.waiting.shift()!;
      this.waitingBytes -= bytes.length;
      if (!this.to.destroyed) this.to.write(bytes);
    }
    this.pace();
    if (this.waiting.length > 0) this.timer = setTimeout(() => this.release(), Math.max(1, this.waiting[0]!.atMs - nowMs));
  }

  /** Reads only as fast as the other side, the delay and the frost allow, so that a fault costs bounded memory. */
  private pace(): void {
    if (this.dead) return;
    if (this.frozen || this.waitingBytes >= WAITING_BYTES_MAX || this.to.writableNeedDrain) this.from.pause();
    else this.from.resume();
  }
}
