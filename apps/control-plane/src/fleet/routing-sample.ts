/** What a choice of devices to route to goes by. */
export interface Routable {
  readonly deviceId: string;
  /** Model version and slice that it runs; undefined before the first. */
  readonly runs: string | undefined;
  readonly queued: number;
}

/** Looked at for each one that is kept: the idle ones of so many are about as good as the idlest of all. */
const LOOKED_AT = 4;

/**
 * At most `max` devices to route to, however large the fleet: of every slice that runs some, those with the shortest queues among as many drawn by
 * chance. `random` is uniform in [0, 1).
 */
export function sampleForRouting<T extends Routable>(devices: Iterable<T>, max: number, random: () => number): T[] {
  const groups = new Map<string, T[]>();
  for (const device of devices) {
    if (device.runs === undefined) continue;
    const group = groups.get(device.runs);
    if (group) group.push(device);
    else groups.set(device.runs, [device]);
  }
  const each = Math.max(1, Math.floor(max / Math.max(1, groups.size)));
  return [...groups.values()].flatMap((group) =>
    draw(group, LOOKED_AT * each, random)
      .sort((a, b) => a.queued - b.queued)
      .slice(0, each),
  );
}

/** `count` different items; reorders `items`. */
function draw<T>(items: T[], count: number, random: () => number): T[] {
  for (let i = 0; i < Math.min(count, items.length); i += 1) {
    const j = i + Math.floor(random() * (items.length - i));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items.slice(0, count);
}
