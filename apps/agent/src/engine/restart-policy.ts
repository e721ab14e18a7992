export interface RestartPolicy {
  readonly firstMs: number;
  readonly capMs: number;
  /** An engine that ran this long starts the count anew. */
  readonly healthyMs: number;
  /** This many exits in a row without a healthy run make a crash loop. */
  readonly loopExits: number;
}

export const defaultRestartPolicy: RestartPolicy = { firstMs: 200, capMs: 30_000, healthyMs: 10_000, loopExits: 5 };

export interface RestartDecision {
  /** Exits in a row, this one included. */
  readonly exits: number;
  readonly delayMs: number;
  readonly crashLooping: boolean;
}

/** After an exit: when to start again. `ranMs` is 0 for a start that failed; `chance` in [0, 1) spreads the wait over its upper half. */
export function afterExit(policy: RestartPolicy, exitsBefore: number, ranMs: number, chance: number): RestartDecision {
  const exits = ranMs >= policy.healthyMs ? 1 : exitsBefore + 1;
  const ceiling = Math.min(policy.capMs, policy.firstMs * 2 ** (exits - 1));
  return { exits, delayMs: Math.round(ceiling / 2 + (chance * ceiling) / 2), crashLooping: exits >= policy.loopExits };
}
