import { UsageFailure } from './failure.js';

/** Parsers of option values. Each throws a UsageFailure naming the option and the part that is wrong. */

/** "5,9, 12" -> [5, 9, 12]. */
export function parseIds(option: string, text: string): number[] {
  return text.split(',').map((part) => {
    if (!/^\s*\d{1,9}\s*$/.test(part))
      throw new UsageFailure(`${option}: ${JSON.stringify(part)} is not a whole number from 0; give numbers separated by commas`);
    return Number(part);
  });
}

/** Longest list of widths: more than any model has layers, so that a typing error such as 64x4000000000 stays an error. */
const MAX_LAYERS = 1000;

/** "64x4,128,64x10" -> four times 64, once 128, ten times 64. */
export function parseWidths(option: string, text: string): number[] {
  const widths = text.split(',').flatMap((part) => {
    const match = /^\s*(\d{1,9})\s*(?:x\s*(\d{1,9}))?\s*$/.exec(part);
    const [width, count] = [Number(match?.[1]), Number(match?.[2] ?? 1)];
    if (!match || width === 0 || count === 0)
      throw new UsageFailure(`${option}: ${JSON.stringify(part)} is neither a width nor a width x count, as in 64x4,128`);
    if (count > MAX_LAYERS) throw new UsageFailure(`${option}: ${part.trim()} asks for ${count} layers; at most ${MAX_LAYERS} make sense`);
    return new Array<number>(count).fill(width);
  });
  return widths;
}

export function parseWhole(option: string, text: string, least: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least)
    throw new UsageFailure(`${option}: ${JSON.stringify(text)} is not a whole number from ${least}`);
  return value;
}

export function parseNumber(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least && value <= most))
    throw new UsageFailure(`${option}: ${JSON.stringify(text)} is not a number from ${least}${most === Infinity ? '' : ` to ${most}`}`);
  return value;
}

/** ["site=berlin", "ring-"] -> { site: 'berlin', ring: null }: a JSON merge patch. */
export function labelPatch(changes: readonly string[]): Record<string, string | null> {
  return Object.fromEntries(
    changes.map((change) => {
      const equals = change.indexOf('=');
      if (equals > 0) return [change.slice(0, equals), change.slice(equals + 1)];
      if (equals < 0 && change.length > 1 && change.endsWith('-')) return [change.slice(0, -1), null];
      throw new UsageFailure(`${JSON.stringify(change)} is neither key=value, to set a label, nor key-, to take it away`);
    }),
  );
}

/** Runs of equal widths, as --ffn takes them: [64, 64, 128] -> "64x2,128". */
export function formatWidths(widths: readonly number[]): string {
  const runs: [width: number, count: number][] = [];
  for (const width of widths) {
    const last = runs.at(-1);
    if (last?.[0] === width) last[1]++;
    else runs.push([width, 1]);
  }
  return runs.map(([width, count]) => (count > 1 ? `${width}x${count}` : `${width}`)).join(',');
}
