const ADDRESSES_MAX = 10_000;

export interface LoginLimitOptions {
  /** Failures that one address may have in a window. */
  perAddress: number;
  /** Failures that all addresses together may have in a window. */
  overall: number;
  windowMs: number;
}

/** Counts failed logins in windows of fixed length. Time is passed in; memory is bounded. */
export class LoginLimit {
  private windowStartMs = -Infinity;
  private total = 0;
  private readonly failures = new Map<string, number>();

  constructor(private readonly options: LoginLimitOptions) {}

  allows(address: string, nowMs: number): boolean {
    this.roll(nowMs);
    return this.total < this.options.overall && (this.failures.get(address) ?? 0) < this.options.perAddress;
  }

  failed(address: string, nowMs: number): void {
    this.roll(nowMs);
    this.total++;
    if (this.failures.size < ADDRESSES_MAX || this.failures.has(address)) this.failures.set(address, (this.failures.get(address) ?? 0) + 1);
  }

  private roll(nowMs: number): void {
    if (nowMs - this.windowStartMs < this.options.windowMs) return;
    this.windowStartMs = nowMs;
    this.total = 0;
    this.failures.clear();
  }
}
