/** What of a device's latency says when its silence is strange; ms. */
export interface Pace {
  readonly ttftMs: number;
  readonly interTokenMs: number;
  readonly queued: number;
}

/** Below this a second device would be asked for every hiccup of a network or scheduler. */
const LEAST_PATIENCE_MS = 150;
const TTFT_TIMES = 3;
const INTER_TOKEN_TIMES = 20;

/** Silence after which a second device is worth asking: several times what the device is expected to take. */
export function patienceMs({ ttftMs, interTokenMs, queued }: Pace, spoke: boolean): number {
  const expectedMs = spoke ? INTER_TOKEN_TIMES * interTokenMs : TTFT_TIMES * ttftMs * (queued + 1);
  return Math.max(LEAST_PATIENCE_MS, expectedMs);
}

/** How many second devices may be asked: a small share of all answers, and a few at the beginning. */
export class HedgeBudget {
  private left: number;

  constructor(
    private readonly share = 0.05,
    private readonly most = 10,
  ) {
    this.left = most;
  }

  answerBegins(): void {
    this.left = Math.min(this.most, this.left + this.share);
  }

  take(): boolean {
    if (this.left < 1) return false;
    this.left -= 1;
    return true;
  }
}
