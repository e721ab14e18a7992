/** `stopped`: a rollout went back or was aborted. `waits`: it waits for an operator. */
export const EXIT = { ok: 0, failed: 1, usage: 2, stopped: 3, waits: 4, interrupted: 130 } as const;

/** The result is printed already; the process ends with this code. */
export class Ended extends Error {
  constructor(readonly exitCode: number) {
    super(`exit code ${exitCode}`);
  }
}

/** A refusal the user can act on. `code` is what `--json` reports. */
export class Failure extends Error {
  constructor(
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A command line that does not make sense: exit code 2. */
export class UsageFailure extends Failure {
  constructor(message: string) {
    super('usage', message);
  }
}

export interface Outcome {
  readonly exitCode: number;
  readonly code: string;
  readonly message: string;
}

/** What to tell the user about anything thrown. Causes are joined, since "fetch failed" alone helps nobody. */
export function describe(error: unknown, interrupted: boolean): Outcome {
  if (interrupted) return { exitCode: EXIT.interrupted, code: 'interrupted', message: 'interrupted' };
  if (!(error instanceof Error)) return { exitCode: EXIT.failed, code: 'failed', message: String(error) };
  const messages = [error.message];
  for (let cause = error.cause; cause instanceof Error && messages.length < 4; cause = cause.cause)
    if (cause.message !== '' && !messages.join(': ').includes(cause.message)) messages.push(cause.message);
  const message = messages.join(': ');
  if (error instanceof UsageFailure) return { exitCode: EXIT.usage, code: error.code, message };
  return { exitCode: EXIT.failed, code: error instanceof Failure ? error.code : 'failed', message };
}
