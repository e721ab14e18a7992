import { Injectable, Logger, type OnModuleDestroy } from '@nestjs/common';
import { Fenced, type Fence } from '../database/fence.js';
import { inSystem } from '../database/scope.js';
import { ReplicaRepository } from './replica.repository.js';
import { REMEMBERED_MS, Replicas } from './replicas.service.js';

const LEASE = 'fleet';
const LEASE_MS = 10_000;
const RENEW_MS = 3_000;
const FORGET_MS = 60_000;

interface Loop {
  readonly everyMs: number;
  readonly work: (fence: Fence) => Promise<void>;
  readonly failed: (error: unknown) => void;
  dueAtMs: number;
  busy: boolean;
}

/** Loops that only one replica may run, over all tenants. They get a fence, and what they write must carry it: a leader that slept finds its writes refused. */
@Injectable()
export class Leadership implements OnModuleDestroy {
  private readonly log = new Logger('leadership');
  private readonly loops: Loop[] = [];
  private fence: Fence | null = null;
  private timers: NodeJS.Timeout[] = [];
  private stopped = false;

  constructor(
    private readonly replicas: Replicas,
    private readonly repository: ReplicaRepository,
  ) {
    this.every(
      FORGET_MS,
      async (fence) => {
        await this.repository.forget(REMEMBERED_MS, fence);
      },
      (error) => this.log.error(error),
    );
  }

  get leading(): boolean {
    return this.fence !== null;
  }

  /** Runs at once when this replica begins to lead, and then so often while it does; never twice at a time. */
  every(everyMs: number, work: (fence: Fence) => Promise<void>, failed: (error: unknown) => void): void {
    this.loops.push({ everyMs, work, failed, dueAtMs: 0, busy: false });
  }

  /** Called once this replica has joined. */
  async start(): Promise<void> {
    await this.renew();
    const guard = (work: () => Promise<void>) => (): void => void work().catch((error: unknown) => this.log.warn(String(error)));
    this.timers = [
      setInterval(
        guard(() => this.renew()),
        RENEW_MS,
      ),
      setInterval(() => this.turn(), 250),
    ];
    for (const timer of this.timers) timer.unref();
  }

  async onModuleDestroy(): Promise<void> {
    this.stopped = true;
    for (const timer of this.timers) clearInterval(timer);
    if (this.fence) await this.repository.resign(LEASE, this.replicas.id).catch((error: unknown) => this.log.warn(String(error)));
    this.fence = null;
  }

  private async renew(): Promise<void> {
    const before = this.fence;
    const fence = await this.repository.lead(LEASE, this.replicas.id, LEASE_MS);
    if (this.stopped) return;
    this.fence = fence;
    if (!fence === !before) return;
    this.log.log(fence ? `this replica leads, with token ${fence.token}` : 'another replica leads');
    for (const loop of this.loops) loop.dueAtMs = 0;
    this.turn();
  }

  private turn(): void {
    const { fence } = this;
    if (!fence || this.stopped) return;
    const nowMs = performance.now();
    for (const loop of this.loops) {
      if (loop.busy || loop.dueAtMs > nowMs) continue;
      loop.busy = true;
      loop.dueAtMs = nowMs + loop.everyMs;
      void inSystem(() => loop.work(fence))
        .catch((error: unknown) => {
          if (error instanceof Fenced) this.fence = null;
          if (!this.stopped) loop.failed(error);
        })
        .finally(() => (loop.busy = false));
    }
  }
}
