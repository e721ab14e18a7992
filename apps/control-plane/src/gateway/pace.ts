import { nextShare } from '../domain/pace.js';

const TICK_MS = 50;
/** The share is decided anew so often, over the ticks of that time. */
const DECIDE_MS = 500;

/** How much this process takes of what comes: measured by how late its own timers are. */
export class Pace {
  private taken = 1;
  private ticks = 0;
  private lateMs = 0;
  private decidedAtMs = performance.now();
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
    this.ticks += 1;
    this.lateMs += Math.max(0, nowMs - this.dueAtMs);
    this.dueAtMs = nowMs + TICK_MS;
    if (nowMs - this.decidedAtMs < DECIDE_MS) return;
    this.taken = nextShare(this.taken, this.lateMs / this.ticks);
    [this.ticks, this.lateMs, this.decidedAtMs] = [0, 0, nowMs];
  }
}
