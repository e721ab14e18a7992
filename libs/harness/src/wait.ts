import { setTimeout as sleep } from 'node:timers/promises';

/** Asks `probe` again every `everyMs` until it returns something other than undefined or false; the error names what was awaited and what was last seen. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  { timeoutMs = 30_000, everyMs = 100, lastSeen }: { timeoutMs?: number; everyMs?: number; lastSeen?: () => unknown } = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let failure: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      failure = undefined;
    } catch (error) {
      failure = error;
    }
    if (performance.now() >= deadline) {
      const seen = lastSeen ? `; last seen: ${JSON.stringify(lastSeen())}` : '';
      throw new Error(`waited ${timeoutMs} ms for ${what}${seen}`, failure === undefined ? undefined : { cause: failure });
    }
    await sleep(everyMs);
  }
}

export { sleep };
