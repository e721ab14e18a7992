/** Wait before the next try: doubles from half a second to 15 s, and the upper half of it is random so that pages do not return together. */
export function backoffMs(attempt: number, random: number): number {
  const ceiling = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return ceiling * (0.5 + random / 2);
}
