import { badRequest } from './http-error.js';

/** Until the caller gives up, ms: `x-matfleet-timeout-ms`, or the timeout that OpenAI's client tells in seconds. */
export function remainingMs(header: (name: string) => string | undefined): number | undefined {
  const own = header('x-matfleet-timeout-ms');
  if (own === undefined) {
    const seconds = Number(header('x-stainless-timeout'));
    return seconds > 0 ? seconds * 1_000 : undefined;
  }
  const value = Number(own);
  if (!(value > 0)) throw badRequest(`x-matfleet-timeout-ms is ${JSON.stringify(own)}; it must be a number above 0`);
  return value;
}
