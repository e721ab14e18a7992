import type { GraphBuilder, Value } from './graph-builder.js';

/** (…, n·width) -> n times (…, width), by operators of `most` results at most: in groups of groups where n is more. */
export function evenSplit(g: GraphBuilder, value: Value, n: number, width: number, most: number): Value[] {
  if (n === 1) return [value];
  const groups = Math.min(n, most);
  const sizes = Array.from({ length: groups }, (_, i) => Math.floor((n * (i + 1)) / groups) - Math.floor((n * i) / groups));
  const parts = g.ops('Split', [value, g.ints(...sizes.map((size) => size * width))], groups, { axis: -1 });
  return parts.flatMap((part, i) => evenSplit(g, part, sizes[i]!, width, most));
}
