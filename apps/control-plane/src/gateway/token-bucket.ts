/** Lets `perSecond` through on average and `burst` at once. Who does not get through is told when to come back, each at a moment of its own. */
export class TokenBucket {
  private tokens: number;
  /** Moments up to this one are promised to those who were turned away. */
  private promisedUntilMs = 0;

  constructor(
    private readonly perSecond: number,
    private readonly burst: number,
    private atMs: number,
    /** The furthest moment that is promised: beyond it, callers share the last one. */
    private readonly waitMaxMs = 60_000,
    /** The share of `perSecond` that is let through now, in (0, 1]. */
    private readonly share: () => number = () => 1,
  ) {
    this.tokens = burst;
  }

  take(nowMs: number): boolean {
    this.tokens = Math.min(this.burst, this.tokens + ((nowMs - this.atMs) / 1_000) * this.rate);
    this.atMs = nowMs;
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }

  private get rate(): number {
    return this.perSecond * this.share();
  }

  /** Milliseconds after which a caller that was turned away finds room: one after another, as fast as tokens come. */
  retryAfterMs(nowMs: number): number {
    const nextMs = Math.max(nowMs, this.promisedUntilMs) + 1_000 / this.rate;
    this.promisedUntilMs = Math.min(nextMs, nowMs + this.waitMaxMs);
    return Math.ceil(this.promisedUntilMs - nowMs);
  }
}
