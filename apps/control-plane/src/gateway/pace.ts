import { nextShare } from '../domain/pace.js';

const TICK_MS = 50;
const TICKS = 10;

/** How much this process takes of what comes: measured by how late its own timers are. */
export class Pace {
  private taken = 1;
  private ticks = 0;
  private lateMs = 0;
  private dueAtMs = performance.now() + TICK_MS;
  private readonly timer = setInterval(() => this.tick(), TICK_MS).unref();

  /** In (0, 1]. */
  get share(): number {
    return this.taken;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private tick(): void {
    const nowMs = performance.now();
    this.lateMs = Math.max(this.lateMs, nowMs - this.dueAtMs);
    this.dueAtMs = nowMs + TICK_MS;
    if (++this.ticks % TICKS !== 0 && this.lateMs < TICKS * TICK_MS) return;
    this.taken = nextShare(this.taken, this.lateMs);
    this.lateMs = 0;
  }
}
