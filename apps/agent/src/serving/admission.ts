/** What this device's answers took lately; absent until there was one. */
export interface Pace {
  readonly answerMs?: number;
  readonly ttftMs?: number;
}

/** From now to the first token of a request that comes in now, as far as the recent past tells; the running answer is taken as half done. */
export function expectedTtftMs(
  { running, waiting }: { readonly running: number; readonly waiting: number },
  { answerMs = 0, ttftMs = 0 }: Pace,
): number {
  return (running / 2 + waiting) * answerMs + ttftMs;
}

/** When a caller had better come back: once what waits now is done; 0.1 s to a minute. */
export function retryAfterMs({ waiting }: { readonly waiting: number }, { answerMs = 1_000 }: Pace): number {
  return Math.min(60_000, Math.max(100, answerMs * (waiting + 1)));
}
